// What one call for draws, or for the entries that a truncation leaves, asks for.
#pragma once

#include <cstdint>

#include "batch.h"

namespace logitlab {

enum class Stage : int { temperature, top_k, top_p, min_p };

struct Cut {
  int count = 0;  // of the stages; none cuts nothing
  Stage stages[4];
  int64_t top_k = 0;
  double top_p = 1, min_p = 0;
};

struct Sampling {
  Batch batch;  // its z, `where`, t and shape; its rows in order are the rows here
  Cut cut;
  int64_t n = 0;
  bool replacement = true;
  uint32_t key[2];
  const uint64_t* row_keys = nullptr;
  const double* uniforms = nullptr;  // rows by n, instead of row_keys: the inverse CDF there
  int64_t* found = nullptr;          // rows by n: indices, -1 where there is nothing (more) to draw
  uint8_t* kept = nullptr;  // rows by k: instead of draws, the entries that the truncation leaves
};

using Sample = void (*)(const Sampling&, int64_t first, int64_t last);

namespace v2 {
extern const Sample sample;
}
namespace v3 {
extern const Sample sample;
}
namespace v4 {
extern const Sample sample;
}
namespace neon {
extern const Sample sample;
}

}  // namespace logitlab
