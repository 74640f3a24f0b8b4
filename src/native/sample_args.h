// The arguments of a call for samples, or for the entries that a truncation keeps.
#pragma once

#include <cstdint>

#include "batch.h"

namespace logitlab {

enum class Stage : int {
  temperature,
  top_k,
  top_p,
  min_p,
  typical_p,
  epsilon,
  eta,
  top_n_sigma,
  top_a,
  xtc
};

constexpr int kMaxStages = 10;

// A parameter of a stage: one number for all rows, or one for each.
struct Parameter {
  double value = 0;
  const double* values = nullptr;
};
// With internal linkage, as the kernels must not share functions.
static inline double value_of_row(const Parameter& parameter, int64_t row) {
  return parameter.values ? parameter.values[row] : parameter.value;
}

struct StageArgs {
  Stage stage;
  // Of the dynamic temperature: the range, 0 where it is off, and the exponent.
  Parameter parameter, exponent;
};

struct Truncation {
  int count = 0;  // of the stages; with none, nothing is truncated
  StageArgs stages[kMaxStages];
};

struct SampleArgs {
  Batch batch;  // its z, `where`, temperatures and shape; its rows in order are the rows here
  Truncation truncation;
  int64_t n = 0;
  bool replacement = true;
  uint32_t key[2];
  const uint64_t* row_keys = nullptr;
  const double* uniforms =
      nullptr;               // (rows, n), instead of row_keys: the arguments of the inverse CDF
  int64_t* found = nullptr;  // (rows, n): classes, -1 where there is none to sample, or none left
  uint8_t* kept = nullptr;   // (rows, k): instead of samples, whether the truncation keeps an entry
  double* used_temperatures = nullptr;  // per row, with `kept`: |T|, dynamic or not
};

using SampleFunction = void (*)(const SampleArgs&, int64_t first, int64_t last);

namespace v2 {
extern const SampleFunction sample;
}
namespace v3 {
extern const SampleFunction sample;
}
namespace v4 {
extern const SampleFunction sample;
}
namespace neon {
extern const SampleFunction sample;
}

}  // namespace logitlab
