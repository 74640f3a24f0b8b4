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
  T low = -kLargest<T>, high = kInfinity<T>;
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
                 power = exponent == 0 ? 1
                         : share > 0   ? exp_of(-exponent * log1p_of(1 / share - 1), 0)
                                       : 0,
                 low = max(0.0, t - width);
    return low + (t + width - low) * power;
  }

  void release() {
    nearness_.release();
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
    const double size = double(count_at_least(z, k, least));
    const Vec<double> tops(top), half(0.5), inverse(1 / range), lowest(-kInfinity<double>);
    // The sum of a function of how far each entry is below m.
    const auto sum_of = [&](auto term) {
      Vec<double> sum(0.0);
      T padded[kLanes];
      for (int64_t i = 0; i < k; i += kLanes) {
        if (k - i < kLanes) copy_padded(z + i, k - i, padded, kLanes, kLowest);
        const Vec<double> x = load_double(k - i < kLanes ? padded : z + i);
        const Vec<double> below = mul(sub(tops, mul(x, half)), inverse);
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
    const double bound = 2 * (top - distance * range);
    const T value = T(bound);
    return min(m, double(value) < bound ? next_after(value, kInfinity<T>) : value);
  }

  // The entries closest to the entropy: |-log p_i - H| = |E[z]/t - z_i/t|.
  Interval<T> typical(double p, const T* z, int64_t k, T m, double t) {
    const RowSums row = sums(z, k, m, t);
    const LogWeights<T> log_weights(m, t);
    load_distances(z, k, m, t, row.mean);
    const double farthest = farthest_of_mass(p * row.total);
    Interval<T> kept{kInfinity<T>, kLowest};
    for (int64_t i = 0; i < k; ++i) {
      if (!(absolute(log_weights(z[i]) - row.mean) <= farthest) || z[i] == kLowest) continue;
      kept.low = min(kept.low, z[i]), kept.high = max(kept.high, z[i]);
    }
    return kept;
  }

  // For each entry, its negative distance from the mean and its weight.
  LOGITLAB_FLATTEN void load_distances(const T* z, int64_t k, T m, double t, double mean) {
    const DoubleWeights<T> weights(m, t);
    const LogWeights<T> log_weights(m, t);
    const Vec<double> means(mean), lowest(-kInfinity<double>), zero(0.0);
    const int64_t padded_size = (k + kLanes - 1) / kLanes * kLanes;
    nearness_.resize(padded_size), weights_.resize(padded_size);
    T padded[kLanes];
    double e[kBlock];
    for (int64_t i = 0; i < k; i += kBlock) {
      const int64_t size = min(kBlock, k - i);
      weights(z + i, size, e);
      fill(e + size, (kLanes - size % kLanes) % kLanes, 0.0);
      for (int64_t j = 0; j < size; j += kLanes) {
        if (size - j < kLanes) copy_padded(z + i + j, size - j, padded, kLanes, kLowest);
        const Vec<double> x = load_double(size - j < kLanes ? padded : z + i + j);
        const Vec<double> difference = sub(log_weights(x), means);
        const Vec<double> nearness = smaller(difference, sub(zero, difference));
        if_less(lowest, x, nearness, lowest).put(nearness_.data() + i + j);
        if_less(lowest, x, Vec<double>(e + j), zero).put(weights_.data() + i + j);
      }
    }
  }

  // The largest distance of the nearest entries that together have the mass `wanted`.
  double farthest_of_mass(double wanted) {
    double *const x = nearness_.data(), *const w = weights_.data();
    int64_t size = nearness_.size();
    double nearest = -kLargest<double>;
    for (int64_t i = 0; i < size; ++i) nearest = max(nearest, x[i]);
    Bisection<double> range(-kInfinity<double>, next_after(nearest, kInfinity<double>));
    double mass = 0;  // of the entries that are nearer than the range
    bool halved = true;
    while (halved && size > kSorted) {
      double nearer = mass, middle;
      for (int i = 0; i < kSteps && (halved = range.halve(middle)); ++i) {
        const double sum = mass + mass_at_least(x, w, size, middle);
        if (sum >= wanted)
          range.set_low(middle);
        else
          range.set_high(middle), nearer = sum;
      }
      mass = nearer;
      int64_t n = 0;
      for (int64_t i = 0; i < size; ++i) {
        const double value = x[i];
        x[n] = value, w[n] = w[i];
        n += value >= range.low() && value < range.high() && value > -kInfinity<double>;
      }
      size = (n + kLanes - 1) / kLanes * kLanes;
      fill(x + n, size - n, -kInfinity<double>), fill(w + n, size - n, 0.0);
    }
    // All that are left are equal.
    if (size > kSorted) return -x[0];
    // The entries that are left, from the nearest.
    double farthest = -nearest;
    while (mass < wanted) {
      const int64_t next = index_of_max(x, size);
      if (size == 0 || x[next] == -kInfinity<double>) break;
      farthest = -x[next];
      mass += w[next], x[next] = -kInfinity<double>;
    }
    return farthest;
  }

  static constexpr int kSteps = 4;
  Buffer<double> nearness_, weights_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
