// Penalties of tokens by their history, compiled once for all instruction sets.
#pragma once

#include <cstdint>

#include "batch.h"

namespace logitlab {

// A list of tokens for each row, one after another: row i has tokens[offsets[i]:offsets[i + 1]].
struct TokenLists {
  const int64_t* tokens;
  const int64_t* offsets;
};

struct PenaltyArgs {
  Kind kind;
  const char* z;
  char* out;
  int64_t k;
  // A torch tensor is rounded to float16 by way of float32, as in torch.
  bool is_tensor;
  TokenLists prompt, output;
  // One number for each token of these lists; of a token that occurs several times in a row, the
  // last bias and the largest penalty of DRY. Without lists the number is null.
  TokenLists biased, dry;
  const double *bias = nullptr, *dry_penalty = nullptr;
  // A bias of each logit, of any kind, or null: of each row, or one row for all.
  const char* all_biases = nullptr;
  Kind bias_kind;
  bool has_bias_rows;
  const double *repetition, *frequency, *presence;  // per row
};

// Copies rows [first, last), with changed logits for the tokens in the lists.
void penalize_rows(const PenaltyArgs& args, int64_t first, int64_t last);

// For each token of a row's history, how many of the tokens before it are those at the end of the
// history, at most `limit`: of those with `least` or more, the index in `tokens` and that number.
// Returns how many there are.
int64_t find_repeats(const TokenLists& history, int64_t rows, const int64_t* least,
                     const int64_t* limit, int64_t* found, int64_t* lengths);

}  // namespace logitlab
