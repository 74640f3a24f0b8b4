// The interval of locally typical sampling: the smallest set of entries whose information is
// nearest to the entropy, |-log p_i - H| = |E[z] - z_i|/t, with at least a share p of the mass.
//
// A sample of the row brackets the distance of the farthest one. One pass over the row computes the
// mean, sums the weights of all entries and of those that are nearer, and collects the entries in
// the bracket; bisection finds the farthest among these.
#pragma once

#include "mass_sample.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Keeps the entries from `low` to `high`; never -inf.
template <class T>
struct Interval {
  T low = -kLargest<T>, high = kInfinity<T>;
};

template <class T>
class TypicalP {
 public:
  // For k entries of which m, finite, is the largest; 0 < t < inf.
  Interval<T> find(const T* z, int64_t k, T m, double t, double p) {
    z_ = z, k_ = k, m_ = m, t_ = t, p_ = p;
    reach_ = reach_of_share(p, k, t), lowest_ = lowest_within(reach_, m);
    Interval<T> kept;
    if constexpr (sizeof(T) < sizeof(double)) {
      const FastWeights<T> fast(m, t);
      if (fast.in_range() && t > 1e-30 && t < 1e30 && find_with(fast, kept)) return kept;
    }
    find_with(DoubleWeights<T>(m, t), kept);
    return kept;
  }

  void release() {
    sample_.release();
    entries_.release();
    nearness_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;

  // False where the error of the weights may change the interval.
  template <class Weights>
  bool find_with(const Weights& weights, Interval<T>& kept) {
    const bool has_sample =
        k_ > 8 * kSample && absolute(m_) < T(1e30) && t_ < 1e30 && sample_.take(weights, z_, k_);
    centre_ = m_;
    if (has_sample) {
      double error;
      const double mean = sample_.mean(max(lowest_, -kLargest<T>), error);
      centre_ = min(T(mean), m_);
      // If the estimate of the mean is not good enough, again with the mean.
      for (int i = 0; i < 2; ++i) {
        const double centre = i == 0 ? mean : double(m_) + t_ * mean_;
        set_bracket(sample_.range(centre, reach_, p_), centre, i == 0 ? error : 0);
        sum_and_collect(weights);
        if (entries_reach_share()) {
          const Farthest found = farthest_entry();
          if (is_in_bracket(found.distance)) return set_interval(weights, found, kept);
        }
      }
    }
    set_bracket({}, 0, 0);
    sum_and_collect(weights);
    return set_interval(weights, farthest_entry(), kept);
  }

  // The distances of the range from `centre`, which may be wrong by an error.
  void set_bracket(const DistanceRange& range, double centre, double error) {
    const double near = max(range.near - error, 0.0), far = range.far + error;
    const T lowest = max(lowest_, -kLargest<T>);
    low_ = far < reach_ ? max(T(centre - far), lowest) : lowest;
    high_ = far < reach_ ? min(T(centre + far), m_) : m_;
    inner_low_ = T(centre - near), inner_high_ = T(centre + near);
    // No entry is within.
    if (!(inner_low_ < inner_high_)) inner_low_ = m_, inner_high_ = kInfinity<T>;
  }
  bool has_inner() const { return inner_low_ < m_; }

  // The sums of the weights of all entries and of those between inner_low_ and inner_high_; the
  // mean of (z - m)/t; and the other entries from low_ to high_ with their weights.
  template <class Weights>
  LOGITLAB_FLATTEN void sum_and_collect(const Weights& weights) {
    using Weight = typename Weights::Weight;
    const Vec<T> low(low_), upper(inner_high_), centre(centre_),
        lowest(T(max(-800 * t_, -double(kLargest<T>)))), nothing(T(0));
    const Vec<Weight> inner_low{Weight(inner_low_)}, inner_high{Weight(inner_high_)},
        zero(Weight(0));
    const LogWeights<T> log_weights(m_, t_);
    Vec<double> total(0.0), inner(0.0), weighted(0.0), spread(0.0);
    Buffer<T>& values = entries_.values;
    int64_t n = 0;
    for_each_group(z_, k_, weights, [&](const T* z, const Weight* e) {
      if (values.size() < n + kGroupSize + kLanes)
        values.resize(min(2 * n, k_) + 2 * kGroupSize + kLanes);
      Vec<Weight> w[4], w_inner[4];
      Vec<T> term[4], size[4];
      bool any = false;
      for (int g = 0; g < 4; ++g) {
        const T* at = z + g * kLanes;
        const Vec<T> v(at);
        w[g] = Vec<Weight>(e + g * kLanes);
        w_inner[g] = zero;
        if constexpr (sizeof(Weight) < sizeof(double)) {
          term[g] = mul(w[g], larger(sub(v, centre), lowest));
          size[g] = larger(term[g], sub(nothing, term[g]));
        } else {
          weighted = add(weighted, mul(log_weights(load_double(at)), w[g]));
        }
        if (all_less(v, low)) continue;
        any = true;
        const Vec<Weight> x = load_as<Weight>(at);
        w_inner[g] = if_less(inner_low, x, if_less(x, inner_high, w[g], zero), zero);
        n += pack_between(v, low_, min(inner_low_, high_), values.data() + n);
        if (!all_less(v, upper)) n += pack_between(v, inner_high_, high_, values.data() + n);
      }
      total = add(total, widened_sum(w));
      if (any) inner = add(inner, widened_sum(w_inner));
      if constexpr (sizeof(Weight) < sizeof(double)) {
        weighted = add(weighted, widen(add(add(term[0], term[1]), add(term[2], term[3]))));
        spread = add(spread, widen(add(add(size[0], size[1]), add(size[2], size[3]))));
      }
    });
    values.resize(n);
    entries_.weigh(weights);
    total_ = sum_of_lanes(total), inner_ = sum_of_lanes(inner);
    mean_ = sum_of_lanes(weighted) / total_, mean_error_ = 0;
    if constexpr (sizeof(Weight) < sizeof(double)) {
      // The relative errors are 1.25 epsilon of a weight, 0.5 of z - centre, of the product and of
      // each of two additions.
      const double below = double(centre_) - double(m_),
                   error = 4 * kEpsilon<T> * (sum_of_lanes(spread) / total_ + absolute(mean_));
      mean_error_ = (error - 0x1p-50 * below) / t_ + 0x1p-140;
      mean_ = (below + mean_) / t_;
    }
  }

  bool entries_reach_share() const {
    return inner_ < p_ * total_ && inner_ + entries_.mass() >= p_ * total_;
  }

  // (z - m)/t of an entry below the mean, from the mean.
  double below_mean(T z) const { return mean_ - (double(z) - double(m_)) / t_; }
  // More than the rounding errors of distances.
  double slack() const { return 1e-9 * (1 - mean_ + absolute(double(m_)) / t_) + 4 * mean_error_; }

  // Whether all entries of this distance from the mean, and no nearer ones but the inner ones, are
  // collected.
  bool is_in_bracket(double distance) const {
    const double inner = max(below_mean(inner_low_), -below_mean(inner_high_)),
                 lower = low_ > max(lowest_, -kLargest<T>) ? below_mean(low_) : 2 * distance + 1,
                 upper = high_ < m_ ? -below_mean(high_) : 2 * distance + 1;
    return (!has_inner() || inner + slack() < distance) && distance < min(lower, upper) - slack();
  }

  // Where the nearest entries reach the share p of the mass: the distance of the farthest one,
  // their mass, and that without it.
  struct Farthest {
    double distance, mass, mass_before;
  };
  // Overwrites the weights of entries_.
  Farthest farthest_entry() {
    load_distances();
    const double wanted = p_ * total_;
    double *const x = nearness_.data(), *const w = entries_.weights.data();
    int64_t size = nearness_.size();
    const double nearest = size ? largest(x, size) : -kInfinity<double>,
                 bound = max(below_mean(low_), -below_mean(high_)) + slack();
    Bisection<double> range(-min(bound, 2000.0), next_after(nearest, kInfinity<double>));
    double mass = inner_;  // of the entries that are nearer than the range
    bool halved = true;
    while (halved && size > kSorted) {
      halved = narrow(range, x, w, size, wanted, mass);
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

  static Vec<double> distance_of(const Vec<double>& x, const Vec<double>& mean) {
    const Vec<double> difference = sub(x, mean);
    return larger(difference, sub(Vec<double>(0.0), difference));
  }

  // The negative distances of the entries from the mean, -inf of padding.
  LOGITLAB_FLATTEN void load_distances() {
    const LogWeights<T> log_weights(m_, t_);
    const Vec<double> mean(mean_), lowest(-kInfinity<double>), zero(0.0);
    const Buffer<T>& values = entries_.values;
    nearness_.resize(values.size());
    for (int64_t i = 0; i < values.size(); i += kLanes) {
      const Vec<double> x = load_double(values.data() + i),
                        nearness = sub(zero, distance_of(log_weights(x), mean));
      if_less(lowest, x, nearness, lowest).put(nearness_.data() + i);
    }
  }

  // The interval of the inner entries and of those not farther than the farthest one. False where
  // the errors of the sums may change it.
  template <class Weights>
  LOGITLAB_FLATTEN bool set_interval(const Weights&, const Farthest& found, Interval<T>& kept) {
    const LogWeights<T> log_weights(m_, t_);
    const Vec<double> mean(mean_), farthest(found.distance),
        inside(found.distance - 2 * mean_error_), outside(found.distance + 2 * mean_error_),
        lowest(-kInfinity<double>), infinity(kInfinity<double>);
    Vec<double> low = infinity, high = lowest, doubt_low = infinity, doubt_high = lowest;
    const Buffer<T>& values = entries_.values;
    for (int64_t i = 0; i < values.size(); i += kLanes) {
      const Vec<double> x = load_double(values.data() + i),
                        distance = if_less(lowest, x, distance_of(log_weights(x), mean), infinity);
      low = smaller(if_less(farthest, distance, infinity, x), low);
      high = larger(if_less(farthest, distance, lowest, x), high);
      const auto if_in_doubt = [&](const Vec<double>& otherwise) {
        return if_less(distance, inside, otherwise, if_less(outside, distance, otherwise, x));
      };
      doubt_low = smaller(if_in_doubt(infinity), doubt_low);
      doubt_high = larger(if_in_doubt(lowest), doubt_high);
    }
    const auto least = [](const Vec<double>& x) {
      double lane[kLanes], result = kInfinity<double>;
      x.put(lane);
      for (double value : lane) result = min(result, value);
      return result;
    };
    const auto most = [&](const Vec<double>& x) { return -least(sub(Vec<double>(0.0), x)); };
    kept = {T(least(low)), T(most(high))};
    if (has_inner()) {
      kept.low = min(kept.low, next_after(inner_low_, kInfinity<T>));
      kept.high = max(kept.high, next_after(inner_high_, kLowest));
    }
    if (Weights::kError == 0) return true;
    const double wanted = p_ * total_, tolerance = 2 * p_ * (1 - p_) * Weights::kError * total_;
    return least(doubt_low) == most(doubt_high) && found.mass_before < wanted - tolerance &&
           found.mass >= wanted + tolerance;
  }

  const T* z_ = nullptr;
  int64_t k_ = 0;
  T m_ = 0, lowest_ = 0;
  double t_ = 1, p_ = 1, reach_ = 0;
  // The bracket, and the entry whose differences from the others have the mean.
  T low_ = 0, high_ = 0, inner_low_ = 0, inner_high_ = 0, centre_ = 0;
  double total_ = 0, inner_ = 0, mean_ = 0, mean_error_ = 0;
  MassSample<T> sample_;
  WeightedEntries<T> entries_;
  Buffer<double> nearness_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
