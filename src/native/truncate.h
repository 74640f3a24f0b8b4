// Truncation of one row without sorting it: each stage keeps the entries above a threshold, and the
// first of those that equal it.
#pragma once

#include "sample_args.h"
#include "top_p.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The largest entry, or NaN where an entry is NaN.
template <class T>
T largest_or_nan(const T* z, int64_t k) {
  const Vec<T> one(T(1));
  Vec<T> nan[2] = {Vec<T>(T(0)), Vec<T>(T(0))};
  Vec<T> m[2] = {Vec<T>(-kInfinity<T>), Vec<T>(-kInfinity<T>)};
  int64_t i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) {
      const Vec<T> v(z + i + j * kLanes);
      m[j] = larger(v, m[j]);
      nan[j] = add(nan[j], unless_equal(v, v, one));
    }
  T top[kLanes], found[kLanes];
  larger(m[0], m[1]).put(top);
  add(nan[0], nan[1]).put(found);
  for (; i < k; ++i) {
    top[0] = max(top[0], z[i]);
    found[0] += is_nan(z[i]);
  }
  for (T x : found)
    if (x > 0) return kNaN<T>;
  return top[index_of_max(top, kLanes)];
}

template <class T>
class ThresholdFinder {
 public:
  // The threshold of a stage for a row with the largest entry m and the weights exp((z - m)/t).
  Threshold<T> threshold(Stage stage, double parameter, const T* z, int64_t k, T m, double t) {
    if (stage == Stage::top_k) return {nth_largest(z, k, int64_t(parameter), m), kAllTies};
    const bool only_ties = t == 0 || m == kInfinity<T>;
    if (stage == Stage::min_p) {
      if (only_ties) return {m, kAllTies};
      if (t == kInfinity<double>) return {kLowest, kAllTies};
      return {min_p_threshold(parameter, m, t), kAllTies};
    }
    if (only_ties) return {m, share_of(parameter, count(z, k, m))};
    if (t == kInfinity<double>) {
      const int64_t n = share_of(parameter, k - count(z, k, kLowest));
      T value = nth_largest(z, k, n, m);
      if (value == kLowest) value = smallest(z, k);
      int64_t above = 0;
      for (int64_t i = 0; i < k; ++i) above += z[i] > value;
      return {value, n - above};
    }
    return top_p_.find(z, k, m, t, parameter);
  }

  // m + t log min_p, rounded upwards.
  static T min_p_threshold(double min_p, T m, double t) {
    // -log min_p = log(1 + (1/min_p - 1)). All is halved, as t log may overflow where the
    // difference does not.
    const double log =
        min_p < 0x1p-500 ? log1p_of(0x1p-540 / min_p - 1) + 540 * kLn2 : log1p_of(1 / min_p - 1);
    // Half of an odd subnormal m is rounded, so that the difference may exceed m.
    const double exact = min(double(m), 2 * (double(m) / 2 - t / 2 * log));
    const T value = T(exact);
    return double(value) < exact ? next_after(value, kInfinity<T>) : value;
  }

  void release() {
    top_p_.release();
    maxima_.release();
    values_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;

  // The n-th largest entry, n >= 1, where m is the largest; -inf where there are fewer.
  LOGITLAB_FLATTEN T nth_largest(const T* z, int64_t k, int64_t n, T m) {
    if (n >= k) return kLowest;
    // The n-th largest of the maxima of many groups is a lower bound.
    const int64_t group = k / (8 * n + kLanes) * kLanes;
    if (k <= kChunkSize || group < 2 * kLanes) return nth_largest_of(z, k, n, m, values_);
    maxima_.clear();
    for (int64_t i = 0; i < k; i += group) {
      const int64_t end = min(i + group, k);
      Vec<T> largest(kLowest);
      int64_t j = i;
      for (; j + kLanes <= end; j += kLanes) largest = larger(Vec<T>(z + j), largest);
      T lane[kLanes];
      largest.put(lane);
      for (int l = 0; j < end; ++j, ++l) lane[l] = max(lane[l], z[j]);
      maxima_.append(lane, kLanes);
    }
    const T bound = nth_largest_of(maxima_.data(), maxima_.size(), n, m, values_);
    collect_between(z, k, bound, kInfinity<T>, maxima_);
    // There are fewer where another thread of Python has changed the row.
    if (maxima_.size() <= n) return maxima_.size() < n ? kLowest : bound;
    return nth_largest_of(maxima_.data(), maxima_.size(), n, m, values_);
  }

  static T smallest(const T* z, int64_t k) {
    T least = kInfinity<T>;
    for (int64_t i = 0; i < k; ++i)
      if (z[i] != kLowest) least = min(least, z[i]);
    return least;
  }

  static int64_t share_of(double p, int64_t entries) {
    return max<int64_t>(1, int64_t(std::ceil(p * double(entries))));
  }

  TopP<T> top_p_;
  Buffer<T> maxima_, values_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
