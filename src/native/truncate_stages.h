// The stages of truncation whose thresholds depend on the entropy, on the variance, or on the
// probabilities: each keeps the entries of an interval.
#pragma once

#include "scalar_math.h"
#include "truncate.h"
#include "typical_p.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

inline double log_of_total(double total) { return log1p_of(max(total - 1, 0.0)); }

// Sums over a row of the weights exp((z - m)/t), and bounds of their errors.
struct RowSums {
  double total = 0;
  double mean = 0;         // of (z - m)/t, under the softmax
  double total_error = 0;  // relative
  double mean_error = 0;   // absolute

  // -sum p log p
  double entropy() const { return max(log_of_total(total) - mean, 0.0); }
};

template <class T>
class IntervalFinder {
 public:
  // The interval of a stage for a row with the largest entry m, at T = t >= 0.
  Interval<T> interval(Stage stage, double parameter, const T* z, int64_t k, T m, double t) {
    const bool only_ties = t == 0 || m == kInfinity<T>, equal = !only_ties && t > kLargest<double>;
    if (equal && stage != Stage::epsilon && stage != Stage::eta && stage != Stage::top_a) return {};
    if (stage == Stage::top_n_sigma) return {only_ties ? m : sigma_bound(parameter, z, k, m)};
    if (only_ties) return stage == Stage::xtc ? Interval<T>{} : Interval<T>{m};
    // All probabilities are equal.
    if (equal) return {};
    if (stage == Stage::typical_p) return typical_p_.find(z, k, m, t, parameter);
    Interval<T> kept;
    if constexpr (sizeof(T) < sizeof(double)) {
      const FastWeights<T> fast(m, t);
      if (fast.in_range() && t > 1e-30 && t < 1e30) {
        const RowSums row = stage == Stage::eta ? fast_sums<true>(fast, z, k, m, t)
                                                : fast_sums<false>(fast, z, k, m, t);
        if (find(stage, parameter, row, z, k, m, t, kept)) return kept;
      }
    }
    find(stage, parameter, sums(z, k, m, t), z, k, m, t, kept);
    return kept;
  }

  // T between max(0, t - width) and t + width, by the entropy at T = 1 relative to log n.
  double dynamic_temperature(const T* z, int64_t k, double t, double width, double exponent) {
    const T m = largest_or_nan(z, k);
    const int64_t size = k - count(z, k, kLowest);
    if (!(width > 0) || size <= 1 || !(m > kLowest) || t > kLargest<double>) return t;
    const double entropy = m == kInfinity<T> ? log_of_total(double(count(z, k, m)))
                                             : sums(z, k, m, 1).entropy(),
                 share = min(entropy / log_of_total(double(size)), 1.0),
                 power = exponent == 0 ? 1
                         : share > 0   ? exp_of(-exponent * log1p_of(1 / share - 1), 0)
                                       : 0,
                 low = max(0.0, t - width);
    return low + (t + width - low) * power;
  }

  void release() { typical_p_.release(); }

 private:
  static constexpr T kLowest = -kInfinity<T>;
  static constexpr int64_t kBlock = 512;

  // False where the errors of the sums may change the interval.
  bool find(Stage stage, double parameter, const RowSums& row, const T* z, int64_t k, T m, double t,
            Interval<T>& kept) {
    const double share = stage == Stage::xtc ? parameter * row.total
                                             : least_share(stage, parameter, row),
                 error = 2 * row.total_error + row.mean_error;
    if (stage == Stage::xtc && share * (1 - error) > 1) return kept = {}, true;
    const T low = entry_of_share(share * (1 - error), m, t),
            high = entry_of_share(share * (1 + error), m, t);
    if (low != high && count_at_least(z, k, low) != count_at_least(z, k, high)) return false;
    if (stage != Stage::xtc) return kept = {high}, true;
    kept = {kLowest, smallest_from(high, z, k)};
    return error == 0 || share * (1 + error) <= 1;
  }

  // The least weight that is kept, where that of m is 1.
  static double least_share(Stage stage, double parameter, const RowSums& row) {
    if (stage == Stage::epsilon) return parameter * row.total;
    if (stage == Stage::top_a) return parameter / row.total;
    const double bound = std::sqrt(parameter) * exp_of(-row.entropy(), 0);
    return min(parameter, bound) * row.total;
  }

  // The least entry whose weight is at least `share`; at most m.
  static T entry_of_share(double share, T m, double t) {
    if (!(share > 0)) return kLowest;
    return share >= 1 ? m : ThresholdFinder<T>::min_p_threshold(share, m, t);
  }

  // The sums of weights in T, which is float, with the mean if WithMean. The relative errors are
  // 1.25 epsilon of a weight, at most 1.5 of (z - m)/t, and 0.5 of their product; where these two
  // are subnormal, the absolute ones are half of 2^-149.
  template <bool WithMean>
  LOGITLAB_FLATTEN static RowSums fast_sums(const FastWeights<T>& weights, const T* z, int64_t k,
                                            T m, double t) {
    constexpr int64_t group = 4 * kLanes;
    const Vec<T> top(m), inverse{T(1 / t)}, lowest(T(-800));
    Vec<double> total(0.0), weighted(0.0);
    T e[kBlock], padded[kBlock], unit[kLanes];
    fill(padded, kLanes, m);
    weights(padded, kLanes, unit);
    for (int64_t i = 0; i < k; i += kBlock) {
      const int64_t size = min(kBlock, k - i), whole = (size + group - 1) / group * group;
      const T* block = z + i;
      if (size < whole) copy_padded(block, size, padded, whole, kLowest), block = padded;
      weights(block, whole, e);
      fill(e + size, whole - size, T(0));
      for (int64_t j = 0; j < whole; j += group) {
        Vec<T> w[4], x[4];
        for (int g = 0; g < 4; ++g) {
          const int64_t at = j + g * kLanes;
          w[g] = Vec<T>(e + at);
          if constexpr (WithMean)
            x[g] = mul(w[g], larger(mul(sub(Vec<T>(block + at), top), inverse), lowest));
        }
        total = add(total, widened_sum(w));
        if constexpr (WithMean) weighted = add(weighted, widened_sum(x));
      }
    }
    RowSums row;
    const double sum = sum_of_lanes(total);
    row.total = max(sum / double(unit[0]), 1.0), row.mean = sum_of_lanes(weighted) / sum;
    row.total_error = 3 * kEpsilon<T>, row.mean_error = 0x1p-147 - 6 * kEpsilon<T> * row.mean;
    return row;
  }

  // The sums of weights in double.
  LOGITLAB_FLATTEN RowSums sums(const T* z, int64_t k, T m, double t) {
    const DoubleWeights<T> weights(m, t);
    const LogWeights<T> log_weights(m, t);
    Vec<double> total(0.0), weighted(0.0);
    double e[kBlock];
    T padded[kLanes];
    for (int64_t i = 0; i < k; i += kBlock) {
      const int64_t size = min(kBlock, k - i), end = size / kLanes * kLanes;
      weights(z + i, size, e);
      const auto add_lanes = [&](const double* weight, const T* entry) {
        const Vec<double> w(weight);
        total = add(total, w);
        weighted = add(weighted, mul(log_weights(load_double(entry)), w));
      };
      for (int64_t j = 0; j < end; j += kLanes) add_lanes(e + j, z + i + j);
      if (end == size) continue;
      double padded_e[kLanes];
      copy_padded(z + i + end, size - end, padded, kLanes, kLowest);
      copy_padded(e + end, size - end, padded_e, kLanes, 0.0);
      add_lanes(padded_e, padded);
    }
    RowSums row;
    row.total = max(sum_of_lanes(total), 1.0);
    row.mean = sum_of_lanes(weighted) / row.total;
    return row;
  }

  // The smallest of the entries that are at least `bound` and above -inf.
  LOGITLAB_FLATTEN static T smallest_from(T bound, const T* z, int64_t k) {
    const Vec<T> bounds(max(bound, -kLargest<T>)), none(kInfinity<T>);
    Vec<T> least = none;
    T padded[kLanes];
    for (int64_t i = 0; i < k; i += kLanes) {
      if (k - i < kLanes) copy_padded(z + i, k - i, padded, kLanes, kInfinity<T>);
      const Vec<T> x(k - i < kLanes ? padded : z + i);
      least = smaller(if_less(x, bounds, none, x), least);
    }
    T lane[kLanes], result = kInfinity<T>;
    least.put(lane);
    for (T x : lane) result = min(result, x);
    return result;
  }

  // m - n sigma, with the population standard deviation of the entries above -inf.
  LOGITLAB_FLATTEN static T sigma_bound(double n, const T* z, int64_t k, T m) {
    const T least = smallest_from(kLowest, z, k);
    // Halved, as differences of large entries overflow; enlarged where a reciprocal overflows.
    const double half_range = double(m) / 2 - double(least) / 2,
                 scale = half_range < 1e-300 ? 0x1p600 : 0.5;
    const double top = double(m) * scale, range = top - double(least) * scale;
    if (!(range > 0)) return m;
    const double size = double(count_at_least(z, k, least));
    const Vec<double> tops(top), scales(scale), inverse(1 / range), lowest(-kInfinity<double>);
    // The sum of a function of how far each entry is below m.
    const auto sum_of = [&](auto term) {
      Vec<double> sum(0.0);
      T padded[kLanes];
      for (int64_t i = 0; i < k; i += kLanes) {
        if (k - i < kLanes) copy_padded(z + i, k - i, padded, kLanes, kLowest);
        const Vec<double> x = load_double(k - i < kLanes ? padded : z + i);
        const Vec<double> below = mul(sub(tops, mul(x, scales)), inverse);
        sum = add(sum, if_less(lowest, x, term(below), Vec<double>(0.0)));
      }
      return sum_of_lanes(sum);
    };
    const Vec<double> mean(sum_of([](const Vec<double>& x) { return x; }) / size);
    const double variance = sum_of([&](const Vec<double>& x) {
                              const Vec<double> difference = sub(x, mean);
                              return mul(difference, difference);
                            }) /
                            size;
    const double distance = n * std::sqrt(variance);
    if (distance >= 1) return least;
    const double bound = (top - distance * range) / scale;
    const T value = T(bound);
    return min(m, double(value) < bound ? next_after(value, kInfinity<T>) : value);
  }

  TypicalP<T> typical_p_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
