// Cumulative sums of weights, and the search for a fraction of their total.
#pragma once

#include "chunk_kernel.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The cumulative sums of at most one chunk of weights, with two coarser levels: every sixteenth
// sum, and every sixteenth of those. A search compares sixteen numbers at once per level.
class CumulativeSums {
 public:
  template <class T>
  LOGITLAB_FLATTEN void set(const T* weights, int64_t k) {
    k_ = k;
    // A level counts sixteen where the target is not below the last of them: one group more.
    constexpr int64_t middle = kChunkSize / kLanes + kLanes;
    if (sums_.empty()) sums_.resize((middle + 1) * kLanes), middle_.resize(middle);
    sum_up(weights);
    int64_t count = (k + kLanes - 1) / kLanes;
    fill(sums_.data() + k, count * kLanes - k, kInfinity<double>);
    levels_ = 1;
    if (count > 1) ++levels_, count = write_level(sums_.data(), count, middle_.data());
    if (count > 1) ++levels_, write_level(middle_.data(), count, top_);
  }
  double total() const { return sums_[k_ - 1]; }

  // For each of n targets, the first index whose sum is above it; for a target of the total, the
  // last index with a weight above 0.
  void find(const double* target, int64_t n, int64_t* index) const {
    int64_t i = 0;
    if (levels_ == 1)
      for (; i + kTargetsAtOnce <= n; i += kTargetsAtOnce) find_several(target + i, index + i);
    for (; i < n; ++i) {
      int64_t at = 0;
      if (levels_ > 2) at = count_at_most(top_, target[i]);
      if (levels_ > 1) at = at * kLanes + count_at_most(middle_.data() + at * kLanes, target[i]);
      index[i] = at * kLanes + count_at_most(sums_.data() + at * kLanes, target[i]);
    }
    for (i = 0; i < n; ++i)
      if (index[i] >= k_) index[i] = lower_bound(sums_.data(), k_, total());
  }

 private:
  static constexpr int kTargetsAtOnce = 8, kParts = 4;
  static_assert(kChunkSize <= kLanes * kLanes * kLanes, "three levels are enough for a chunk");

  // Four parts at once hide the latency of the additions.
  template <class T>
  LOGITLAB_FLATTEN void sum_up(const T* weights) {
    double* sums = sums_.data();
    const int64_t part = k_ < kParts * kLanes ? 0 : k_ / kParts;
    double part_sum[kParts] = {};
    for (int64_t i = 0; i < part; ++i)
      for (int p = 0; p < kParts; ++p)
        sums[p * part + i] = part_sum[p] += double(weights[p * part + i]);
    double before = part_sum[0];
    for (int p = 1; p < kParts; ++p) {
      for (int64_t i = p * part; i < (p + 1) * part; ++i) sums[i] += before;
      before += part_sum[p];
    }
    for (int64_t i = kParts * part; i < k_; ++i) sums[i] = before += double(weights[i]);
  }

  // Writes the last of each sixteen sums, infinity for the last sixteen, padded to whole sixteens;
  // returns the number of sixteens.
  static int64_t write_level(const double* sums, int64_t count, double* level) {
    for (int64_t i = 0; i < count - 1; ++i) level[i] = sums[(i + 1) * kLanes - 1];
    const int64_t sixteens = (count + kLanes - 1) / kLanes;
    fill(level + count - 1, sixteens * kLanes - (count - 1), kInfinity<double>);
    return sixteens;
  }
  // How many of sixteen sums are at most the target.
  static int64_t count_at_most(const double* sums, double target) {
    return kLanes - count_less(Vec<double>(target), Vec<double>(sums));
  }
  void find_several(const double* target, int64_t* index) const {
    int64_t at[kTargetsAtOnce] = {};
    for (int64_t j = 0; j < k_; ++j)
      for (int l = 0; l < kTargetsAtOnce; ++l) at[l] += sums_[j] <= target[l];
    copy(at, kTargetsAtOnce, index);
  }

  Buffer<double> sums_, middle_;
  double top_[kLanes];
  int64_t k_ = 0;
  int levels_ = 1;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
