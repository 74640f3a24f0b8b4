// Running sums of weights, and the search for a part of their total.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "row_kernel.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Running sums of at most one chunk of weights, and the places of parts of the total in them. Above
// them stand every sixteenth sum and every sixteenth of those, so that a search looks at sixteen
// numbers side by side a level.
class Cumulative {
 public:
  template <class T>
  LOGITLAB_FLATTEN void set(const T* e, int64_t k) {
    k_ = k;
    if (sums_.empty()) sums_.resize(kChunk), every_.resize(kChunk / kLanes);
    run(e);
    int64_t count = (k + kLanes - 1) / kLanes;
    std::fill(sums_.begin() + k, sums_.begin() + count * kLanes, kInfinity);
    levels_ = 1;
    if (count > 1) ++levels_, count = level(sums_.data(), count, every_.data());
    if (count > 1) ++levels_, level(every_.data(), count, top_);
  }
  double total() const { return sums_[k_ - 1]; }

  // The first place whose sum is above each of n targets; a target at the total finds the last
  // weight above 0.
  void find(const double* target, int64_t n, int64_t* place) const {
    int64_t i = 0;
    if (levels_ == 1)
      for (; i + kTogether <= n; i += kTogether) count(target + i, place + i);
    for (; i < n; ++i) {
      int64_t at = 0;
      if (levels_ > 2) at = at_most(top_, target[i]);
      if (levels_ > 1) at = at * kLanes + at_most(every_.data() + at * kLanes, target[i]);
      place[i] = at * kLanes + at_most(sums_.data() + at * kLanes, target[i]);
    }
    const double* sums = sums_.data();
    for (i = 0; i < n; ++i)
      if (place[i] >= k_) place[i] = std::lower_bound(sums, sums + k_, total()) - sums;
  }

 private:
  static constexpr int kTogether = 8, kParts = 4;
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static_assert(kChunk <= kLanes * kLanes * kLanes, "three levels hold a chunk");

  // By quarters, whose additions do not wait for one another.
  template <class T>
  LOGITLAB_FLATTEN void run(const T* e) {
    double* sums = sums_.data();
    const int64_t part = k_ < kParts * kLanes ? 0 : k_ / kParts;
    double s[kParts] = {};
    for (int64_t i = 0; i < part; ++i)
      for (int p = 0; p < kParts; ++p) sums[p * part + i] = s[p] += double(e[p * part + i]);
    double before = s[0];
    for (int p = 1; p < kParts; ++p) {
      for (int64_t i = p * part; i < (p + 1) * part; ++i) sums[i] += before;
      before += s[p];
    }
    for (int64_t i = kParts * part; i < k_; ++i) sums[i] = before += double(e[i]);
  }

  // The ends of `count` sixteens, the last of them beyond every target, in whole sixteens: how
  // many.
  static int64_t level(const double* below, int64_t count, double* to) {
    for (int64_t i = 0; i < count - 1; ++i) to[i] = below[(i + 1) * kLanes - 1];
    const int64_t sixteens = (count + kLanes - 1) / kLanes;
    std::fill(to + count - 1, to + sixteens * kLanes, kInfinity);
    return sixteens;
  }
  // How many of sixteen sums are at most the target; all of them where it is at the total.
  static int64_t at_most(const double* sums, double target) {
    return kLanes - count_less(Vec<double>(target), Vec<double>(sums));
  }
  void count(const double* target, int64_t* place) const {
    int64_t at[kTogether] = {};
    for (int64_t j = 0; j < k_; ++j)
      for (int l = 0; l < kTogether; ++l) at[l] += sums_[j] <= target[l];
    std::copy(at, at + kTogether, place);
  }

  std::vector<double> sums_, every_;
  double top_[kLanes];
  int64_t k_ = 0;
  int levels_ = 1;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
