// Truncation of one row without sorting it: every stage keeps the entries above a threshold, and
// of those that equal it the first few.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "exact_row.h"
#include "row_kernel.h"
#include "sample_args.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The entries z > at, and the first `ties` of those that equal it; never -inf.
template <class T>
struct Threshold {
  T at;
  int64_t ties;
};
constexpr int64_t kAllTies = std::numeric_limits<int64_t>::max();

// The largest entry, or NaN where there is one.
template <class T>
T largest_or_nan(const T* z, int64_t k) {
  const Vec<T> one(T(1));
  Vec<T> nan[2] = {Vec<T>(T(0)), Vec<T>(T(0))};
  Vec<T> m[2] = {Vec<T>(-std::numeric_limits<T>::infinity()), m[0]};
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
    top[0] = std::max(top[0], z[i]);
    found[0] += z[i] != z[i];
  }
  for (T x : found)
    if (x > 0) return std::numeric_limits<T>::quiet_NaN();
  return *std::max_element(top, top + kLanes);
}

// Calls use(i) for every i with z[i] >= at, and for others beside them, in order; quick where there
// are few.
template <class T, class Use>
void each_near(const T* z, int64_t k, T at, Use use) {
  const Vec<T> limit(at);
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    if (all_less(Vec<T>(z + i), limit)) continue;
    for (int64_t j = i; j < i + kLanes; ++j) use(j);
  }
  for (; i < k; ++i) use(i);
}

inline Vec<double> in_double(const float* z) { return widen(Vec<float>(z)); }
inline Vec<double> in_double(const double* z) { return Vec<double>(z); }

// exp((z - m)/t), in double.
template <class T>
class DoubleWeights {
 public:
  DoubleWeights(T m, double t) : m_(m), t_(t), scale_(scale_of<double>(t)) {
    fast_ = scale_.usable && std::fabs(double(m) * scale_.c) < Range<double>::reach;
    if (!fast_) return;
    const Frame<double> frame = frame_of(double(m), scale_);
    magic_ = frame.magic, floor_ = frame.floor;
    // Weights come relative to 2^N; that of m is what all of them have in common.
    double lane[kLanes];
    relative(Vec<double>(double(m))).put(lane);
    unit_ = 1 / lane[0];
  }
  void operator()(const T* z, int64_t n, double* e) const {
    if (!fast_) return exact_weights(z, n, m_, t_, e);
    const Vec<double> unit(unit_);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) mul(relative(in_double(z + i)), unit).put(e + i);
    if (i == n) return;
    T rest[kLanes];
    double padded[kLanes];
    std::fill(std::copy(z + i, z + n, rest), rest + kLanes, -std::numeric_limits<T>::infinity());
    mul(relative(in_double(rest)), unit).put(padded);
    std::copy(padded, padded + (n - i), e + i);
  }

 private:
  Vec<double> relative(const Vec<double>& z) const {
    return weights(z, Vec<double>(scale_.c), Vec<double>(scale_.c_low), Vec<double>(magic_),
                   Vec<double>(floor_));
  }
  T m_;
  double t_, magic_ = 0, floor_ = 0, unit_ = 1;
  Scale<double> scale_;
  bool fast_;
};

template <class T>
class Selector {
 public:
  // The threshold of the n largest entries of z, n >= 1; its ties are all kept.
  LOGITLAB_FLATTEN T nth_largest(const T* z, int64_t k, int64_t n) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    if (n >= k) return lowest;
    values_.clear();
    // The n-th largest of the maxima of many cells is a lower bound.
    const int64_t run = k / (8 * n + kLanes) * kLanes;
    if (run >= 2 * kLanes) {
      for (int64_t i = 0; i < k; i += run) {
        const int64_t end = std::min(i + run, k);
        Vec<T> m(lowest);
        int64_t j = i;
        for (; j + kLanes <= end; j += kLanes) m = larger(Vec<T>(z + j), m);
        T lane[kLanes];
        m.put(lane);
        for (int l = 0; j < end; ++j, ++l) lane[l] = std::max(lane[l], z[j]);
        values_.insert(values_.end(), lane, lane + kLanes);
      }
      const T bound = nth(n);
      values_.clear();
      each_near(z, k, bound, [&](int64_t i) {
        if (z[i] >= bound) values_.push_back(z[i]);
      });
    } else {
      values_.assign(z, z + k);
    }
    return nth(n);
  }

  // What the stage leaves of a row with the largest entry m, of weights exp((z - m)/t).
  Threshold<T> threshold(Stage stage, const Cut& cut, const T* z, int64_t k, T m, double t) {
    const bool only_top = t == 0 || m == std::numeric_limits<T>::infinity();
    if (stage == Stage::top_k) return {nth_largest(z, k, cut.top_k), kAllTies};
    if (stage == Stage::min_p) {
      if (only_top) return {m, kAllTies};
      if (t == std::numeric_limits<double>::infinity()) return {all(), kAllTies};
      // -log min_p = log(1 + (1/min_p - 1)); halves, as t times it may overflow where m less that
      // does not.
      const bool tiny = cut.min_p < 0x1p-500;
      const double log =
          tiny ? log1p_of(0x1p-540 / cut.min_p - 1) + 540 * kLn2 : log1p_of(1 / cut.min_p - 1);
      const double least = 2 * (double(m) / 2 - t / 2 * log);
      T at = T(least);
      if (double(at) < least) at = std::nextafter(at, std::numeric_limits<T>::infinity());
      return {at, kAllTies};
    }
    if (only_top) {
      const int64_t count = std::count(z, z + k, m);
      return {m, share_of(cut.top_p, count)};
    }
    if (t == std::numeric_limits<double>::infinity()) {
      const int64_t count = k - std::count(z, z + k, all());
      const int64_t n = share_of(cut.top_p, count);
      T at = nth_largest(z, k, n);
      if (at == all()) at = smallest(z, k);
      int64_t above = 0;
      for (int64_t i = 0; i < k; ++i) above += z[i] > at;
      return {at, n - above};
    }
    return nucleus(z, k, m, t, cut.top_p);
  }

 private:
  static constexpr T all() { return -std::numeric_limits<T>::infinity(); }

  static T smallest(const T* z, int64_t k) {
    T least = std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < k; ++i)
      if (z[i] != all()) least = std::min(least, z[i]);
    return least;
  }

  static int64_t share_of(double p, int64_t count) {
    return std::max<int64_t>(1, int64_t(std::ceil(p * double(count))));
  }

  T nth(int64_t n) {
    std::nth_element(values_.begin(), values_.begin() + (n - 1), values_.end(),
                     [](T a, T b) { return a > b; });
    return values_[n - 1];
  }

  // The smallest set of largest entries that has the share p of the mass: a histogram finds the
  // narrow range in which it ends, and only what is in there is sorted.
  LOGITLAB_FLATTEN Threshold<T> nucleus(const T* z, int64_t k, T m, double t, double p) {
    const DoubleWeights<T> weights(m, t);
    if (k <= kPart) {
      double e[kPart], total = 0;
      weights(z, k, e);
      for (int64_t i = 0; i < k; ++i) total += e[i];
      values_.assign(z, z + k);
      return end_of(weights, 0, p * total);
    }
    // Entries below the share (1 - p)/k of the mass of the largest are in none.
    const double reach = t * (log1p_of(double(k) / (1 - p)) + 1);
    const double steps = kBins / reach;
    mass_.assign(kBins + 1, 0.0);
    double e[kPart], bin[kPart];
    for (int64_t i = 0; i < k; i += kPart) {
      const int64_t size = std::min(kPart, k - i);
      weights(z + i, size, e);
      bins(z + i, size, m, steps, bin);
      for (int64_t j = 0; j < size; ++j) mass_[number(bin[j])] += e[j];
    }
    double total = 0, sum = 0;
    for (double x : mass_) total += x;
    const double wanted = p * total;
    int64_t b = 0;
    for (; b < kBins && sum + mass_[b] < wanted; ++b) sum += mass_[b];
    // The entries of that range, and what of them is still needed.
    values_.clear();
    const double inf = std::numeric_limits<double>::infinity();
    // Wider than the range by more than all roundings.
    const double slack = 0.5 / steps + std::fabs(double(m)) * 4 * std::numeric_limits<T>::epsilon();
    const Vec<T> low(T(b == kBins ? -inf : double(m) - double(b + 1) / steps - slack));
    const Vec<T> high(T(double(m) - double(b) / steps + slack)), zero(T(0));
    auto look = [&](int64_t i) {
      double here;
      bins(z + i, 1, m, steps, &here);
      if (number(here) == b && z[i] != all()) values_.push_back(z[i]);
    };
    int64_t i = 0;
    for (; i + kLanes <= k; i += kLanes) {
      // Past over where all are above the range or below it.
      const Vec<T> v(z + i);
      if (all_less(zero, larger(sub(v, high), sub(low, v)))) continue;
      for (int64_t j = i; j < i + kLanes; ++j) look(j);
    }
    for (; i < k; ++i) look(i);
    return end_of(weights, sum, wanted);
  }

  // Where the mass `sum`, with that of the largest of values_, comes to what is wanted.
  LOGITLAB_FLATTEN Threshold<T> end_of(const DoubleWeights<T>& weights, double sum, double wanted) {
    std::sort(values_.begin(), values_.end(), [](T x, T y) { return x > y; });
    if (values_.empty()) return {all(), kAllTies};
    Threshold<T> found{values_[0], 0};
    double e[kPart];
    const int64_t count = int64_t(values_.size());
    for (int64_t i = 0; i < count && (i == 0 || sum < wanted); ++i) {
      if (i % kPart == 0) weights(values_.data() + i, std::min(kPart, count - i), e);
      if (values_[i] != found.at) found = {values_[i], 0};
      ++found.ties;
      sum += e[i % kPart];
    }
    return found;
  }

  // Monotone in z, as the low digits of 2^52; the last one is for all that is too far below.
  LOGITLAB_FLATTEN static void bins(const T* z, int64_t n, T m, double steps, double* bin) {
    const Vec<double> most(-double(kBins)), top{double(m)}, scale(-steps), big(0x1p52);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      sub(big, larger(mul(sub(top, in_double(z + i)), scale), most)).put(bin + i);
    for (; i < n; ++i) {
      // NaN, of 0 times infinity, goes to the last bin, as in larger().
      const double y = (double(m) - double(z[i])) * -steps;
      bin[i] = 0x1p52 - (y > -double(kBins) ? y : -double(kBins));
    }
  }
  static int64_t number(double bin) { return uint32_t(bit_cast<uint64_t>(bin)); }

  static constexpr int64_t kBins = 2048, kPart = 512;
  std::vector<double> mass_;
  std::vector<T> values_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
