// The rows of a batch, of any layout and type, on the kernels of one instruction set.
#pragma once

#include "label_losses.h"
#include "large_row_runner.h"
#include "losses.h"
#include "small_row_runner.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// S is the type in memory, T that of the arithmetic.
template <class S, class T>
void run_kind(const Batch& batch, int64_t first, int64_t last) {
  if (batch.k <= kMaxSmallRow)
    SmallRowRunner<S, T>(batch).run(first, last);
  else if (batch.loss && batch.k <= kChunkSize && !batch.targets && batch.smoothing == 0)
    LabelLosses<S, T>(batch).run(first, last);
  else if (batch.loss)
    LargeRowLosses<S, T>(batch).run(first, last);
  else
    LargeRowRunner<S, T>(batch).run(first, last);
}

void run_batch(const Batch& batch, int64_t first, int64_t last) {
  switch (batch.kind) {
    case kFloat32:
      return run_kind<float, float>(batch, first, last);
    case kFloat64:
      return run_kind<double, double>(batch, first, last);
    case kFloat16:
      return run_kind<Half, float>(batch, first, last);
    case kBFloat16:
      return run_kind<BFloat, float>(batch, first, last);
  }
}

// The softmax of contiguous rows of type T; `temperatures` is one per row, or null.
template <class T>
void softmax_rows(const T* z, T* out, int64_t rows, int64_t k, double temperature,
                  const double* temperatures, int row_threads) {
  Batch batch{};
  batch.op = Op::softmax, batch.kind = sizeof(T) == 4 ? kFloat32 : kFloat64;
  batch.z = reinterpret_cast<const char*>(z), batch.out = reinterpret_cast<char*>(out);
  batch.temperature = temperature;
  batch.temperatures = reinterpret_cast<const char*>(temperatures);
  batch.k = k, batch.rows = rows, batch.dims = 1;
  batch.z_step = batch.out_step = sizeof(T);
  batch.shape[0] = rows, batch.temperature_stride[0] = sizeof(double);
  batch.z_stride[0] = batch.out_stride[0] = k * int64_t(sizeof(T));
  batch.row_threads = row_threads;
  run_kind<T, T>(batch, 0, rows);
}

}  // namespace

extern const RunFunction run;
const RunFunction run = run_batch;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
