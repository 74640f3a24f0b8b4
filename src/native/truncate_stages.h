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
    Interval<T> kept;
    if constexpr (sizeof(T) < sizeof(double)) {
      const FastWeights<T> fast(m, t);
      if (fast.in_range() && t > 1e-30 && t < 1e30) {
        const RowSums row = stage == Stage::typical_p || stage == Stage::eta
                                ? fast_sums<true>(fast, z, k, m, t)
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

  void release() {
    values_.release();
    nearness_.release();
    weights_.release();
    order_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;
  static constexpr int64_t kBlock = 512;

  // False where the errors of the sums may change the interval.
  bool find(Stage stage, double parameter, const RowSums& row, const T* z, int64_t k, T m, double t,
            Interval<T>& kept) {
    if (stage == Stage::typical_p) return typical(parameter, row, z, k, m, t, kept);
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

  // The entries closest to the entropy: |-log p_i - H| = |E[z]/t - z_i/t|. False where the errors
  // of the sums may change them.
  bool typical(double p, const RowSums& row, const T* z, int64_t k, T m, double t,
               Interval<T>& kept) {
    // The n nearest entries of a sample tell how far away the entries of the row may be left out.
    if (k > 8 * kSample && absolute(m) < T(1e30) && t < 1e30) {
      T sample[kSample];
      copy_sample(z, k, sample);
      for (int64_t n = 64; n <= 512; n *= 8) {
        load_distances(sample, kSample, m, t, row.mean);
        const double nearest = largest(nearness_.data(), kSample),
                     distance = -nth_largest_of(nearness_.data(), kSample, n, nearest, order_);
        if (!(distance - row.mean < 700)) break;
        collect_between(z, k, next_after(T(m + t * (row.mean - distance)), kLowest),
                        next_after(T(m + t * (row.mean + distance)), kInfinity<T>), values_);
        bool certain = false;
        const Farthest found =
            keep_nearest(p, row, values_.data(), values_.size(), m, t, kept, certain);
        const double slack = 1e-9 * (1 - row.mean + absolute(double(m)) / t) + 4 * row.mean_error;
        if (found.mass >= p * row.total && found.distance < distance - slack) return certain;
      }
    }
    bool certain = false;
    keep_nearest(p, row, z, k, m, t, kept, certain);
    return certain;
  }

  // The nearest entries that together have a certain mass: the distance of the farthest one, their
  // mass, and that without the farthest one.
  struct Farthest {
    double distance, mass, mass_before;
  };

  // The interval of the entries of z that are nearest to the mean and have a share p of the mass of
  // the row; `certain` where the errors of the sums of the row do not change it.
  Farthest keep_nearest(double p, const RowSums& row, const T* z, int64_t k, T m, double t,
                        Interval<T>& kept, bool& certain) {
    load_distances(z, k, m, t, row.mean);
    const double wanted = p * row.total;
    const Farthest found = farthest_of_mass(wanted);
    const LogWeights<T> log_weights(m, t);
    const Vec<double> mean(row.mean), farthest(found.distance), one(1.0), zero(0.0),
        inside(found.distance - 2 * row.mean_error), outside(found.distance + 2 * row.mean_error),
        lowest(-kInfinity<double>), infinity(kInfinity<double>);
    Vec<double> low = infinity, high = lowest, in_doubt = zero;
    T padded[kLanes];
    for (int64_t i = 0; i < k; i += kLanes) {
      if (k - i < kLanes) copy_padded(z + i, k - i, padded, kLanes, kLowest);
      const Vec<double> x = load_double(k - i < kLanes ? padded : z + i),
                        distance = if_less(lowest, x, distance_of(log_weights(x), mean), infinity);
      low = smaller(if_less(farthest, distance, infinity, x), low);
      high = larger(if_less(farthest, distance, lowest, x), high);
      in_doubt =
          add(in_doubt, if_less(distance, inside, zero, if_less(outside, distance, zero, one)));
    }
    double lows[kLanes], highs[kLanes];
    low.put(lows), high.put(highs);
    kept = {kInfinity<T>, kLowest};
    for (int i = 0; i < kLanes; ++i)
      kept.low = min(kept.low, T(lows[i])), kept.high = max(kept.high, T(highs[i]));
    certain = row.total_error == 0 ||
              (sum_of_lanes(in_doubt) == 1 && found.mass_before < wanted * (1 - row.total_error) &&
               found.mass >= wanted * (1 + row.total_error));
    return found;
  }

  static Vec<double> distance_of(const Vec<double>& x, const Vec<double>& mean) {
    const Vec<double> difference = sub(x, mean);
    return larger(difference, sub(Vec<double>(0.0), difference));
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
        const Vec<double> nearness = sub(zero, distance_of(log_weights(x), means));
        if_less(lowest, x, nearness, lowest).put(nearness_.data() + i + j);
        if_less(lowest, x, Vec<double>(e + j), zero).put(weights_.data() + i + j);
      }
    }
  }

  // Of the entries of load_distances; overwrites them.
  Farthest farthest_of_mass(double wanted) {
    double *const x = nearness_.data(), *const w = weights_.data();
    int64_t size = nearness_.size();
    const double nearest = size ? largest(x, size) : -kInfinity<double>;
    // No distance is larger, as (z - m)/t is at least -800.
    Bisection<double> range(-2000.0, next_after(nearest, kInfinity<double>));
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
        n += int(value >= range.low()) & int(value < range.high());
      }
      size = (n + kLanes - 1) / kLanes * kLanes;
      fill(x + n, size - n, -kInfinity<double>), fill(w + n, size - n, 0.0);
    }
    // All that are left are equal.
    if (size > kSorted) return {-x[0], mass + mass_at_least(x, w, size, x[0]), mass};
    // The entries that are left, from the nearest.
    Farthest farthest{-nearest, mass, mass};
    while (farthest.mass < wanted) {
      const int64_t next = index_of_max(x, size);
      if (size == 0 || x[next] == -kInfinity<double>) break;
      farthest = {-x[next], farthest.mass + w[next], farthest.mass};
      x[next] = -kInfinity<double>;
    }
    return farthest;
  }

  static constexpr int kSteps = 4;
  Buffer<T> values_;
  Buffer<double> nearness_, weights_, order_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
