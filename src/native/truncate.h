// Truncation of one row without sorting it: each stage keeps the entries above a threshold, and the
// first of those that equal it.
#pragma once

#include "chunk_kernel.h"
#include "exact_row.h"
#include "sample_args.h"
#include "sorting.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Keeps the entries above `value`, and the first `ties` of those that equal it; never -inf.
template <class T>
struct Threshold {
  T value;
  int64_t ties;
};
constexpr int64_t kAllTies = std::numeric_limits<int64_t>::max();

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

// Calls use(i), in order, for every i with z[i] >= bound and for others near them; fast where these
// are few.
template <class T, class Use>
void for_each_near(const T* z, int64_t k, T bound, Use use) {
  const Vec<T> bounds(bound);
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    if (all_less(Vec<T>(z + i), bounds)) continue;
    for (int64_t j = i; j < i + kLanes; ++j) use(j);
  }
  for (; i < k; ++i) use(i);
}

inline Vec<double> load_double(const float* z) { return widen(Vec<float>(z)); }
inline Vec<double> load_double(const double* z) { return Vec<double>(z); }

// exp((z - m)/t), in double.
template <class T>
class DoubleWeights {
 public:
  DoubleWeights(T m, double t) : m_(m), t_(t), beta_(inverse_temperature<double>(t)) {
    in_range_ = beta_.in_range && absolute(double(m) * beta_.c) < Range<double>::max_exponent;
    if (!in_range_) return;
    const ExponentFrame<double> frame = exponent_frame(double(m), beta_);
    rounding_ = frame.rounding, floor_ = frame.floor;
    // The weights are relative to 2^N; they are divided by that of m.
    double lane[kLanes];
    relative_weights(Vec<double>(double(m))).put(lane);
    unit_ = 1 / lane[0];
  }
  void operator()(const T* z, int64_t n, double* e) const {
    if (!in_range_) return exact_weights(z, n, m_, t_, e);
    const Vec<double> unit(unit_);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) mul(relative_weights(load_double(z + i)), unit).put(e + i);
    if (i == n) return;
    T padded[kLanes];
    double padded_e[kLanes];
    copy_padded(z + i, n - i, padded, kLanes, -kInfinity<T>);
    mul(relative_weights(load_double(padded)), unit).put(padded_e);
    copy(padded_e, n - i, e + i);
  }

 private:
  Vec<double> relative_weights(const Vec<double>& z) const {
    return weights(z, Vec<double>(beta_.c), Vec<double>(beta_.c_low), Vec<double>(rounding_),
                   Vec<double>(floor_));
  }
  T m_;
  double t_, rounding_ = 0, floor_ = 0, unit_ = 1;
  InverseTemperature<double> beta_;
  bool in_range_;
};

template <class T>
class ThresholdFinder {
 public:
  // The threshold of a stage for a row with the largest entry m and the weights exp((z - m)/t).
  Threshold<T> threshold(Stage stage, double parameter, const T* z, int64_t k, T m, double t) {
    if (stage == Stage::top_k) return {nth_largest(z, k, int64_t(parameter)), kAllTies};
    const bool only_ties = t == 0 || m == kInfinity<T>;
    if (stage == Stage::min_p) {
      if (only_ties) return {m, kAllTies};
      if (t == kInfinity<double>) return {kLowest, kAllTies};
      return {min_p_threshold(parameter, m, t), kAllTies};
    }
    if (only_ties) return {m, share_of(parameter, count(z, k, m))};
    if (t == kInfinity<double>) {
      const int64_t n = share_of(parameter, k - count(z, k, kLowest));
      T value = nth_largest(z, k, n);
      if (value == kLowest) value = smallest(z, k);
      int64_t above = 0;
      for (int64_t i = 0; i < k; ++i) above += z[i] > value;
      return {value, n - above};
    }
    return top_p_threshold(z, k, m, t, parameter);
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
    mass_.release();
    values_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;
  static constexpr int64_t kBins = 2048, kBlock = 512;

  // The n-th largest entry, n >= 1; -inf where there are fewer.
  LOGITLAB_FLATTEN T nth_largest(const T* z, int64_t k, int64_t n) {
    if (n >= k) return kLowest;
    values_.clear();
    // The n-th largest of the maxima of many groups is a lower bound.
    const int64_t group = k / (8 * n + kLanes) * kLanes;
    if (group >= 2 * kLanes) {
      for (int64_t i = 0; i < k; i += group) {
        const int64_t end = min(i + group, k);
        Vec<T> m(kLowest);
        int64_t j = i;
        for (; j + kLanes <= end; j += kLanes) m = larger(Vec<T>(z + j), m);
        T lane[kLanes];
        m.put(lane);
        for (int l = 0; j < end; ++j, ++l) lane[l] = max(lane[l], z[j]);
        values_.append(lane, kLanes);
      }
      const T bound = nth_largest_value(n);
      values_.clear();
      for_each_near(z, k, bound, [&](int64_t i) {
        if (z[i] >= bound) values_.push_back(z[i]);
      });
    } else {
      values_.append(z, k);
    }
    return nth_largest_value(n);
  }

  // Reorders values_. -inf where there are fewer, as another thread of Python has changed the row.
  T nth_largest_value(int64_t n) {
    if (n > values_.size()) return kLowest;
    select_nth_largest(values_.data(), values_.size(), n);
    return values_[n - 1];
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

  // The smallest set of largest entries with a mass of at least p. A histogram finds the narrow
  // range in which it ends; only the entries in that range are sorted.
  LOGITLAB_FLATTEN Threshold<T> top_p_threshold(const T* z, int64_t k, T m, double t, double p) {
    const DoubleWeights<T> weights(m, t);
    values_.clear();
    if (k <= kBlock) {
      double e[kBlock], total = 0;
      weights(z, k, e);
      for (int64_t i = 0; i < k; ++i) total += e[i];
      values_.append(z, k);
      return threshold_of_mass(weights, 0, p * total);
    }
    // All entries below the share (1 - p)/k of the largest weight together are less than 1 - p.
    const double width = t * (log1p_of(double(k) / (1 - p)) + 1);
    const double bins_per_unit = kBins / width;
    const double total = fill_histogram(weights, z, k, m, bins_per_unit);
    const double wanted = p * total;
    double above = 0;
    int64_t bin = 0;
    for (; bin < kBins && above + mass_[bin] < wanted; ++bin) above += mass_[bin];
    collect_bin(z, k, m, bins_per_unit, bin);
    return threshold_of_mass(weights, above, wanted);
  }

  // The mass of each bin; returns the total.
  LOGITLAB_FLATTEN double fill_histogram(const DoubleWeights<T>& weights, const T* z, int64_t k,
                                         T m, double bins_per_unit) {
    mass_.resize(2 * kBins);
    fill(mass_.data(), kBins + 1, 0.0);
    double e[kBlock], bin[kBlock];
    for (int64_t i = 0; i < k; i += kBlock) {
      const int64_t size = min(kBlock, k - i);
      weights(z + i, size, e);
      find_bins(z + i, size, m, bins_per_unit, bin);
      for (int64_t j = 0; j < size; ++j) mass_[bin_number(bin[j])] += e[j];
    }
    double total = 0;
    for (int64_t b = 0; b <= kBins; ++b) total += mass_[b];
    return total;
  }

  // The entries of one bin, to values_.
  LOGITLAB_FLATTEN void collect_bin(const T* z, int64_t k, T m, double bins_per_unit, int64_t bin) {
    // The bounds are wider than the bin by more than all rounding errors.
    const double slack = 0.5 / bins_per_unit + absolute(double(m)) * 4 * kEpsilon<T>;
    const Vec<T> low(
        T(bin == kBins ? -kInfinity<double> : double(m) - double(bin + 1) / bins_per_unit - slack));
    const Vec<T> high(T(double(m) - double(bin) / bins_per_unit + slack)), zero(T(0));
    auto collect = [&](int64_t i) {
      double entry_bin;
      find_bins(z + i, 1, m, bins_per_unit, &entry_bin);
      if (bin_number(entry_bin) == bin && z[i] != kLowest) values_.push_back(z[i]);
    };
    int64_t i = 0;
    for (; i + kLanes <= k; i += kLanes) {
      // Skips sixteen entries that are all outside of the bounds.
      const Vec<T> v(z + i);
      if (all_less(zero, larger(sub(v, high), sub(low, v)))) continue;
      for (int64_t j = i; j < i + kLanes; ++j) collect(j);
    }
    for (; i < k; ++i) collect(i);
  }

  // Where the mass `sum`, plus that of the largest of values_, reaches `wanted`.
  LOGITLAB_FLATTEN Threshold<T> threshold_of_mass(const DoubleWeights<T>& weights, double sum,
                                                  double wanted) {
    const int64_t size = values_.size();
    if (size == 0) return {kLowest, kAllTies};
    sort_descending(values_.data(), size);
    Threshold<T> found{values_[0], 0};
    double e[kBlock];
    for (int64_t i = 0; i < size && (i == 0 || sum < wanted); ++i) {
      if (i % kBlock == 0) weights(values_.data() + i, min(kBlock, size - i), e);
      if (values_[i] != found.value) found = {values_[i], 0};
      ++found.ties;
      sum += e[i % kBlock];
    }
    return found;
  }

  // The bin of each entry, as the low digits of 2^52; not decreasing as z decreases. The last bin
  // has all entries below the others.
  LOGITLAB_FLATTEN static void find_bins(const T* z, int64_t n, T m, double bins_per_unit,
                                         double* bin) {
    const Vec<double> most(-double(kBins)), top{double(m)}, scale(-bins_per_unit), big(0x1p52);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      sub(big, larger(mul(sub(top, load_double(z + i)), scale), most)).put(bin + i);
    for (; i < n; ++i) {
      // NaN, from 0 times infinity, belongs to the last bin, as with larger().
      const double y = (double(m) - double(z[i])) * -bins_per_unit;
      bin[i] = 0x1p52 - (y > -double(kBins) ? y : -double(kBins));
    }
  }
  // Below 2 kBins, also where another thread of Python has changed the row.
  static int64_t bin_number(double bin) {
    return uint32_t(bit_cast<uint64_t>(bin)) % uint32_t(2 * kBins);
  }

  Buffer<double> mass_;
  Buffer<T> values_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
