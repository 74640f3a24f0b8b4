// What one call asks for, and the kernels of one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exact_row.h"

namespace logitlab {

enum Kind : int { kFloat32, kFloat64, kFloat16, kBFloat16 };

constexpr int kMaxDims = 64;

// Rows of up to so many classes are worked on sixteen at a time, longer ones four at a time.
constexpr int64_t kFew = 128;

// Rows along one class axis; the other axes, outermost first, number them. Strides are in bytes.
struct Batch {
  Op op;
  Kind kind;
  const char* z;
  char* out;
  const char* where = nullptr;  // one byte an entry, or null
  const char* t = nullptr;      // one double a row, or null: `temperature` for all
  double temperature = 1;
  int64_t k;
  int64_t z_step, out_step, where_step = 0;  // along the class axis
  int64_t rows;
  int dims;
  int64_t shape[kMaxDims], z_stride[kMaxDims], out_stride[kMaxDims], where_stride[kMaxDims],
      t_stride[kMaxDims];
  // Of the losses, one for each row in the order of the rows.
  const int64_t* label = nullptr;  // below 0: the row counts for nothing
  const void* targets = nullptr;   // in place of labels: float or double, k a row
  double smoothing = 0;
  const double* scale = nullptr;  // of the gradient
  double* loss = nullptr;
  int row_threads = 1;  // that share one row
  bool stream = false;  // the result is too large for the caches: write past them
};

// Rows [first, last) of the batch. Which rows are worked on in one call leaves no trace in their
// bits.
using Run = void (*)(const Batch&, int64_t first, int64_t last);

// Of rows [first, last) of contiguous float or double what temperature_loss.h says: four doubles a
// row.
using MomentsRun = void (*)(Kind kind, const void* z, const int64_t* y, int64_t k, double t,
                            double* out, int64_t first, int64_t last);

namespace v2 {
extern const Run run;
extern const MomentsRun moments;
}  // namespace v2
namespace v3 {
extern const Run run;
extern const MomentsRun moments;
}  // namespace v3
namespace v4 {
extern const Run run;
extern const MomentsRun moments;
}  // namespace v4
namespace neon {
extern const Run run;
extern const MomentsRun moments;
}  // namespace neon

}  // namespace logitlab
