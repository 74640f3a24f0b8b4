// Transposes sixteen contiguous rows of few classes into lanes, in blocks of 4 x 4, and back.
#pragma once

#include "algorithms.h"
#include "batch.h"
#include "transpose4.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// A block may reach up to three entries into the next row, so the last four rows are copied.
constexpr int64_t kPaddedSmallRow = kMaxSmallRow + 4;

// lanes[i * 16 + r] = rows[r * k + i]; `lanes` has memory for a multiple of four classes.
template <class T>
void transpose_in(const T* rows, int64_t k, T* lanes) {
  T last[4 * kPaddedSmallRow];
  for (int r = 0; r < 4; ++r) copy(rows + (12 + r) * k, k, last + r * kPaddedSmallRow);
  for (int64_t i = 0; i < k; i += 4) {
    for (int r = 0; r < 12; r += 4) transpose4(rows + r * k + i, k, lanes + i * kLanes + r, kLanes);
    transpose4(last + i, kPaddedSmallRow, lanes + i * kLanes + 12, kLanes);
  }
}

// lanes[i * 16 + r] = rows[r * k + i] for n rows, and 0 for the others.
template <class T>
void transpose_rows_in(const T* rows, int64_t k, int n, T* lanes) {
  if (n == kLanes) return transpose_in(rows, k, lanes);
  // What the memory held before could make the arithmetic of the other lanes slow.
  fill(lanes, k * kLanes, T(0));
  for (int r = 0; r < n; ++r)
    for (int64_t i = 0; i < k; ++i) lanes[i * kLanes + r] = rows[r * k + i];
}

// rows[r * k + i] = lanes[i * 16 + r].
template <class T>
void transpose_out(const T* lanes, int64_t k, T* rows) {
  T last[4 * kPaddedSmallRow];
  // From the last class to the first, so that entries written beyond a row are overwritten.
  for (int64_t i = (k - 1) / 4 * 4; i >= 0; i -= 4) {
    for (int r = 0; r < 12; r += 4) transpose4(lanes + i * kLanes + r, kLanes, rows + r * k + i, k);
    transpose4(lanes + i * kLanes + 12, kLanes, last + i, kPaddedSmallRow);
  }
  for (int r = 0; r < 4; ++r) copy(last + r * kPaddedSmallRow, k, rows + (12 + r) * k);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
