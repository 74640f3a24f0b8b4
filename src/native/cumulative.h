// Running sums of weights, and the search for a part of their total.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Running sums of weights, and the places of parts of the total in them.
class Cumulative {
 public:
  template <class T>
  void set(const T* e, int64_t k) {
    if (int64_t(sums_.size()) < k) sums_.resize(size_t(k));
    k_ = k;
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sums_[i] = sum += double(e[i]);
  }
  double total() const { return sums_[k_ - 1]; }

  // The first place whose sum is above each of n targets; a target at the total finds the last
  // weight above 0.
  void find(const double* target, int64_t n, int64_t* place) const {
    const double* sums = sums_.data();
    int64_t i = 0;
    for (; i + kTogether <= n; i += kTogether)
      k_ <= kFew ? count(target + i, place + i) : halve(target + i, place + i);
    for (; i < n; ++i) {
      int64_t at = 0;
      if (k_ <= kFew)
        for (int64_t j = 0; j < k_; ++j) at += sums[j] <= target[i];
      else
        at = std::upper_bound(sums, sums + k_, target[i]) - sums;
      place[i] = at;
    }
    for (i = 0; i < n; ++i)
      if (place[i] >= k_) place[i] = std::lower_bound(sums, sums + k_, total()) - sums;
  }

 private:
  static constexpr int kTogether = 8;

  void count(const double* target, int64_t* place) const {
    int64_t at[kTogether] = {};
    for (int64_t j = 0; j < k_; ++j)
      for (int l = 0; l < kTogether; ++l) at[l] += sums_[j] <= target[l];
    std::copy(at, at + kTogether, place);
  }
  void halve(const double* target, int64_t* place) const {
    int64_t at[kTogether] = {};
    for (int64_t size = k_; size > 0;) {
      const int64_t half = (size + 1) / 2;
      for (int l = 0; l < kTogether; ++l)
        at[l] += sums_[at[l] + half - 1] <= target[l] ? half : 0;
      size -= half;
    }
    std::copy(at, at + kTogether, place);
  }

  std::vector<double> sums_;
  int64_t k_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
