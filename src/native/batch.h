// The arguments of one call, and the kernels of each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exact_row.h"

namespace logitlab {

enum Kind : int { kFloat32, kFloat64, kFloat16, kBFloat16 };

constexpr int kMaxDims = 64;

// Rows of at most so many classes are computed sixteen at a time.
constexpr int64_t kMaxSmallRow = 48;

// Rows across the class axis are computed up to sixteen at a time while they have so few entries.
constexpr int64_t kAcrossEntries = int64_t(1) << 23;

// Rows along the class axis; the other axes, outermost first, number them. Strides are in bytes.
// The per-row pointers of the losses are contiguous, in the order of the rows.
struct Batch {
  Op op;
  Kind kind;
  const char* z;
  char* out;
  const char* where = nullptr;         // one byte per entry, or null
  const char* temperatures = nullptr;  // one double per row, or null: `temperature` for all
  double temperature = 1;
  int64_t k;
  int64_t z_step, out_step, where_step = 0;  // along the class axis
  int64_t rows;
  int dims;
  int64_t shape[kMaxDims], z_stride[kMaxDims], out_stride[kMaxDims], where_stride[kMaxDims],
      temperature_stride[kMaxDims];
  const int64_t* label = nullptr;  // negative: the row is ignored
  const void* targets = nullptr;   // instead of labels: k float or double per row
  double smoothing = 0;
  const double* gradient_scale = nullptr;  // per row
  double* loss = nullptr;                  // per row
  int row_threads = 1;                     // threads that share one row
  bool stream = false;  // the result is larger than the caches: write it without caching
};

// Computes rows [first, last) of the batch. The bits of a row do not depend on the range.
using RunFunction = void (*)(const Batch&, int64_t first, int64_t last);

// Computes the four numbers per row of temperature_loss.h for rows [first, last) of contiguous
// float or double.
using MomentsFunction = void (*)(Kind kind, const void* z, const int64_t* y, int64_t k, double t,
                                 double* out, int64_t first, int64_t last);

namespace v2 {
extern const RunFunction run;
extern const MomentsFunction moments;
}  // namespace v2
namespace v3 {
extern const RunFunction run;
extern const MomentsFunction moments;
}  // namespace v3
namespace v4 {
extern const RunFunction run;
extern const MomentsFunction moments;
}  // namespace v4
namespace neon {
extern const RunFunction run;
extern const MomentsFunction moments;
}  // namespace neon

}  // namespace logitlab
