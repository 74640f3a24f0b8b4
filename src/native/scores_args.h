// The arguments of the scores of rows.
#pragma once

#include "batch.h"

namespace logitlab {

// Contiguous rows of float or double; `other` is null for the entropy. NaN is written for a row out
// of the range of the kernels.
struct ScoreArgs {
  Kind kind;
  const void *z, *other;
  int64_t k;
  const double* t;  // of each row
  double* out;
};
using ScoreFunction = void (*)(const ScoreArgs&, int64_t first, int64_t last);

// Contiguous rows of float or double; slope is 1/T of each row.
struct SecondProductArgs {
  Kind kind;
  const void *p, *u, *v;
  void* out;
  const double* slope;
  int64_t k;
};
using SecondProductFunction = void (*)(const SecondProductArgs&, int64_t first, int64_t last);

namespace v2 {
extern const ScoreFunction scores;
extern const SecondProductFunction second_products;
}  // namespace v2
namespace v3 {
extern const ScoreFunction scores;
extern const SecondProductFunction second_products;
}  // namespace v3
namespace v4 {
extern const ScoreFunction scores;
extern const SecondProductFunction second_products;
}  // namespace v4
namespace neon {
extern const ScoreFunction scores;
extern const SecondProductFunction second_products;
}  // namespace neon

}  // namespace logitlab
