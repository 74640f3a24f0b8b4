// Sixteen rows of few classes, one after another in memory, into lanes and back.
#pragma once

#include <algorithm>

#include "batch.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Rows of few classes are turned by blocks of four; a block may reach up to three entries into the
// row that follows, so the last rows go by a copy.
constexpr int64_t kTail = kFew + 4;

// lanes[i * 16 + r] = rows[r * k + i], with room for a multiple of four classes.
template <class T>
void turn_in(const T* rows, int64_t k, T* lanes) {
  T last[4 * kTail];
  for (int r = 0; r < 4; ++r) std::copy(rows + (12 + r) * k, rows + (13 + r) * k, last + r * kTail);
  for (int64_t i = 0; i < k; i += 4) {
    for (int r = 0; r < 12; r += 4) transpose4(rows + r * k + i, k, lanes + i * kLanes + r, kLanes);
    transpose4(last + i, kTail, lanes + i * kLanes + 12, kLanes);
  }
}

template <class T>
void turn_out(const T* lanes, int64_t k, T* rows) {
  T last[4 * kTail];
  // From the right, so that what a block writes too much is overwritten by the row it hit.
  for (int64_t i = (k - 1) / 4 * 4; i >= 0; i -= 4) {
    for (int r = 0; r < 12; r += 4) transpose4(lanes + i * kLanes + r, kLanes, rows + r * k + i, k);
    transpose4(lanes + i * kLanes + 12, kLanes, last + i, kTail);
  }
  for (int r = 0; r < 4; ++r)
    std::copy(last + r * kTail, last + r * kTail + k, rows + (12 + r) * k);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
