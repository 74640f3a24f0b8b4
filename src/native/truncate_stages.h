// The stages of truncation whose thresholds depend on the entropy, on the variance, or on the
// probabilities: each keeps the entries of an interval.
#pragma once

#include "scalar_math.h"
#include "truncate.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Keeps the entries from `low` to `high`; never -inf.
template <class T>
struct Interval {
  T low = -kInfinity<T>, high = kInfinity<T>;
};

inline double log_of_total(double total) { return log1p_of(max(total - 1, 0.0)); }

// (z - m)/t in double, at least -800, where its exponential is 0.
template <class T>
class LogWeights {
 public:
  LogWeights(T m, double t)
      : half_(absolute(double(m)) > 1e300 ? 0.5 : 1),
        m_(double(m) * half_),
        inverse_(min(1 / (t * half_), kLargest<double>)) {}
  Vec<double> operator()(const Vec<double>& z) const {
    const Vec<double> difference = sub(mul(z, Vec<double>(half_)), Vec<double>(m_));
    return larger(mul(difference, Vec<double>(inverse_)), Vec<double>(-800.0));
  }
  double operator()(T z) const { return max((double(z) * half_ - m_) * inverse_, -800.0); }

 private:
  double half_, m_, inverse_;
};

// Sums over a row of the weights exp((z - m)/t).
struct RowSums {
  double total = 0;
  double mean = 0;  // of (z - m)/t, under the softmax

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
    switch (stage) {
      case Stage::typical_p:
        return only_ties ? Interval<T>{m} : typical(parameter, z, k, m, t);
      case Stage::top_n_sigma:
        return {only_ties ? m : sigma_bound(parameter, z, k, m)};
      case Stage::xtc:
        return only_ties ? Interval<T>{} : xtc(parameter, z, k, m, t);
      default:
        break;
    }
    if (only_ties) return {m};
    // All probabilities are equal.
    if (equal) return {};
    return {entry_of_share(least_share(stage, parameter, sums(z, k, m, t)), m, t)};
  }

  // T between max(0, t - width) and t + width, by the entropy at T = 1 relative to log n.
  double dynamic_temperature(const T* z, int64_t k, double t, double width, double exponent) {
    const T m = largest_or_nan(z, k);
    const int64_t size = k - count(z, k, kLowest);
    if (!(width > 0) || size <= 1 || !(m > kLowest) || t > kLargest<double>) return t;
    const double entropy = m == kInfinity<T> ? log_of_total(double(count(z, k, m)))
                                             : sums(z, k, m, 1).entropy(),
                 share = min(entropy / log_of_total(double(size)), 1.0),
                 power = share > 0       ? exp_of(-exponent * log1p_of(1 / share - 1), 0)
                         : exponent == 0 ? 1
                                         : 0,
                 low = max(0.0, t - width);
    return low + (t + width - low) * power;
  }

  void release() {
    sorted_.release();
    weights_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;
  static constexpr int64_t kBlock = 512;

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

  static T smallest_from(T bound, const T* z, int64_t k) {
    T least = kInfinity<T>;
    for (int64_t i = 0; i < k; ++i)
      if (z[i] >= bound && z[i] > kLowest) least = min(least, z[i]);
    return least;
  }

  Interval<T> xtc(double threshold, const T* z, int64_t k, T m, double t) {
    const double share = threshold * sums(z, k, m, t).total;
    if (share > 1) return {};
    return {kLowest, smallest_from(entry_of_share(share, m, t), z, k)};
  }

  // m - n sigma, with the population standard deviation of the entries above -inf.
  LOGITLAB_FLATTEN static T sigma_bound(double n, const T* z, int64_t k, T m) {
    const T least = smallest_from(kLowest, z, k);
    // Halved, as differences of large entries overflow; relative to the range, as squares do.
    const double top = double(m) / 2, range = top - double(least) / 2;
    if (!(range > 0)) return m;
    const double inverse = 1 / range;
    const auto below = [&](T x) { return (top - double(x) / 2) * inverse; };
    double size = 0, mean = 0, variance = 0;
    for (int64_t i = 0; i < k; ++i)
      if (z[i] > kLowest) ++size, mean += below(z[i]);
    mean /= size;
    for (int64_t i = 0; i < k; ++i)
      if (z[i] > kLowest) variance += (below(z[i]) - mean) * (below(z[i]) - mean);
    const double distance = n * std::sqrt(variance / size);
    if (distance >= 1) return least;
    const double bound = 2 * (top - distance * range);
    const T value = T(bound);
    return min(m, double(value) < bound ? next_after(value, kInfinity<T>) : value);
  }

  // The entries closest to the entropy, -log p_i - H = E[z]/t - z_i/t, from both sides of E[z].
  Interval<T> typical(double p, const T* z, int64_t k, T m, double t) {
    const RowSums row = sums(z, k, m, t);
    const LogWeights<T> log_weights(m, t);
    sorted_.clear();
    for (int64_t i = 0; i < k; ++i)
      if (z[i] > kLowest) sorted_.push_back(z[i]);
    const int64_t size = sorted_.size();
    if (size == 0) return {};
    T* const x = sorted_.data();
    sort_descending(x, size);
    weights_.resize(size);
    DoubleWeights<T>(m, t)(x, size, weights_.data());
    int64_t below = 0;
    while (below < size && log_weights(x[below]) >= row.mean) ++below;
    int64_t above = below - 1;
    const double wanted = p * row.total;
    double mass = 0, farthest = -1;
    while (above >= 0 || below < size) {
      const double up = above >= 0 ? log_weights(x[above]) - row.mean : kInfinity<double>;
      const double down = below < size ? row.mean - log_weights(x[below]) : kInfinity<double>;
      const double next = min(up, down);
      // The ties of the last entry are kept.
      if (mass >= wanted && next > farthest) break;
      farthest = next;
      mass += weights_[up <= down ? above : below];
      up <= down ? --above : ++below;
    }
    return {x[below - 1], x[above + 1]};
  }

  Buffer<T> sorted_;
  Buffer<double> weights_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
