// The threshold of top-p: the smallest set of largest entries with at least a share p of the mass.
//
// A sample of the row brackets the threshold. One pass over the row sums all weights and those
// above the bracket, and collects the entries in it; bisection finds the threshold among these.
#pragma once

#include "mass_sample.h"

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

template <class T>
class TopP {
 public:
  // For k entries of which m, finite, is the largest; 0 < t < inf.
  Threshold<T> find(const T* z, int64_t k, T m, double t, double p) {
    z_ = z, k_ = k, m_ = m, p_ = p;
    reach_ = reach_of_share(p, k, t), lowest_ = lowest_within(reach_, m);
    Threshold<T> threshold;
    if constexpr (sizeof(T) < sizeof(double)) {
      const FastWeights<T> fast(m, t);
      if (fast.in_range() && find_with(fast, threshold)) return threshold;
    }
    find_with(DoubleWeights<T>(m, t), threshold);
    return threshold;
  }

  void release() {
    sample_.release();
    entries_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;

  // False where the error of the weights may change the threshold.
  template <class Weights>
  bool find_with(const Weights& weights, Threshold<T>& threshold) {
    low_ = lowest_, high_ = m_;
    if (k_ > 8 * kSample && sample_.take(weights, z_, k_)) {
      const DistanceRange range = sample_.range(double(m_), reach_, p_);
      if (range.far < reach_) low_ = max(T(double(m_) - range.far), lowest_);
      if (range.near > 0) high_ = T(double(m_) - range.near);
    }
    sum_and_collect(weights);
    const double wanted = p_ * total_;
    if ((high_ < m_ && above_ >= wanted) || (low_ > lowest_ && above_ + entries_.mass() < wanted)) {
      // The threshold is outside of the bracket.
      low_ = lowest_, high_ = m_;
      sum_and_collect(weights);
    }
    const double tolerance = 2 * p_ * (1 - p_) * Weights::kError * total_;
    return find_in_bracket(weights, above_, p_ * total_, tolerance, threshold);
  }

  // The sums of all weights and of those above high_, and the entries from low_ to high_ with their
  // weights.
  template <class Weights>
  LOGITLAB_FLATTEN void sum_and_collect(const Weights& weights) {
    using Weight = typename Weights::Weight;
    const Vec<T> low(low_);
    const Vec<Weight> high{Weight(high_)}, zero(Weight(0));
    Vec<double> total(0.0), above(0.0);
    Buffer<T>& values = entries_.values;
    int64_t n = 0;
    for_each_group(z_, k_, weights, [&](const T* z, const Weight* e) {
      if (values.size() < n + kGroupSize + kLanes)
        values.resize(min(2 * n, k_) + 2 * kGroupSize + kLanes);
      Vec<Weight> w[4], w_above[4];
      bool any = false;
      for (int g = 0; g < 4; ++g) {
        const T* at = z + g * kLanes;
        const Vec<T> v(at);
        w[g] = Vec<Weight>(e + g * kLanes);
        w_above[g] = zero;
        if (all_less(v, low)) continue;
        any = true;
        w_above[g] = if_less(high, load_as<Weight>(at), w[g], zero);
        n += pack_between(v, low_, high_, values.data() + n);
      }
      total = add(total, widened_sum(w));
      if (any) above = add(above, widened_sum(w_above));
    });
    total_ = sum_of_lanes(total), above_ = sum_of_lanes(above);
    values.resize(n);
    entries_.weigh(weights);
  }

  // Where `mass`, that of the entries above high_, plus that of the largest of the others reaches
  // `wanted`; false where it is too close to it. Overwrites entries_.
  template <class Weights>
  bool find_in_bracket(const Weights& weights, double mass, double wanted, double tolerance,
                       Threshold<T>& threshold) {
    Buffer<T>& values = entries_.values;
    Bisection<T> range(low_, next_after(high_, kInfinity<T>));
    bool halved = true;
    while (halved && values.size() > kSorted) {
      halved = narrow(range, values.data(), entries_.weights.data(), values.size(), wanted, mass);
      // Only the entries that are left.
      int64_t n = 0;
      const T low = max(range.low(), -kLargest<T>), high = next_after(range.high(), kLowest);
      for (int64_t i = 0; i < values.size(); i += kLanes)
        n += pack_between(Vec<T>(values.data() + i), low, high, values.data() + n);
      values.resize(n);
      entries_.weigh(weights);
    }
    threshold = {kLowest, kAllTies};
    const int64_t size = values.size();
    if (size == 0) return true;
    sort_descending(values.data(), size);
    weights(values.data(), size, entries_.weights.data());
    double before = mass;
    threshold = {values[0], 0};
    for (int64_t i = 0; i < size && values[i] > kLowest && (i == 0 || mass < wanted); ++i) {
      if (values[i] != threshold.value) threshold = {values[i], 0};
      ++threshold.ties;
      before = mass;
      mass += entries_.weights[i];
    }
    return before < wanted - tolerance && mass >= wanted + tolerance;
  }

  MassSample<T> sample_;
  WeightedEntries<T> entries_;
  const T* z_ = nullptr;
  int64_t k_ = 0;
  T m_ = 0, lowest_ = 0, low_ = 0, high_ = 0;
  double p_ = 1, reach_ = 0, total_ = 0, above_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
