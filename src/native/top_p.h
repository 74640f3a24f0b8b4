// The threshold of top-p: the smallest set of largest entries with at least a share p of the mass.
//
// A sample of the row brackets the threshold. One pass over the row sums all weights and those
// above the bracket, and collects the entries in it; bisection finds the threshold among these.
// In float the weights have few digits: where the sums are too close to decide, all is computed
// again with weights in double.
#pragma once

#include "bisection.h"
#include "exact_row.h"

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

// exp((z - m)/t) times a constant, in T. Applicable where in_range().
template <class T>
class FastWeights {
 public:
  using Weight = T;
  // At most so large is the relative error of a weight, but for the common constant (0.76
  // kEpsilon was the largest of ten million).
  static constexpr double kError = 1.25 * kEpsilon<T>;
  FastWeights(T m, double t) : beta_(inverse_temperature<T>(t)) {
    in_range_ = beta_.in_range && absolute(m * beta_.c) < Range<T>::max_exponent;
    if (in_range_) frame_ = exponent_frame(m, beta_);
  }
  bool in_range() const { return in_range_; }
  // Of n entries, a multiple of sixteen.
  void operator()(const T* z, int64_t n, T* e) const {
    for (int64_t i = 0; i < n; i += kLanes) (*this)(z + i).put(e + i);
  }
  void operator()(const T* z, int64_t n, double* e) const {
    for (int64_t i = 0; i < n; i += kLanes) widen((*this)(z + i)).put(e + i);
  }

 private:
  Vec<T> operator()(const T* z) const {
    return weights(Vec<T>(z), Vec<T>(beta_.c), Vec<T>(beta_.c_low), Vec<T>(frame_.rounding),
                   Vec<T>(frame_.floor));
  }
  InverseTemperature<T> beta_;
  ExponentFrame<T> frame_;
  bool in_range_;
};

// exp((z - m)/t), in double.
template <class T>
class DoubleWeights {
 public:
  using Weight = double;
  static constexpr double kError = 0;
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
class TopP {
 public:
  // For k entries of which m, finite, is the largest; 0 < t < inf.
  Threshold<T> find(const T* z, int64_t k, T m, double t, double p) {
    z_ = z, k_ = k, m_ = m, p_ = p;
    // All entries below the share (1 - p)/k of the largest weight together are less than 1 - p.
    const double lowest = double(m) - t * (log1p_of(double(k) / (1 - p)) + 1);
    lowest_ = lowest > -double(kLargest<T>) ? next_after(T(lowest), kLowest) : kLowest;
    Threshold<T> threshold;
    if constexpr (sizeof(T) < sizeof(double)) {
      const FastWeights<T> fast(m, t);
      if (fast.in_range() && find_with(fast, threshold)) return threshold;
    }
    find_with(DoubleWeights<T>(m, t), threshold);
    return threshold;
  }

  void release() {
    values_.release();
    weights_.release();
  }

 private:
  static constexpr T kLowest = -kInfinity<T>;
  static constexpr int64_t kBlock = 512, kGroup = 4 * kLanes;
  static constexpr int64_t kHeavySample = 64;  // of the sample, the entries that are all collected
  static constexpr int kSteps = 4;
  static constexpr double kDeviations = 4;  // of the estimated mass at both ends of the bracket

  // False where the error of the weights may change the threshold.
  template <class Weights>
  bool find_with(const Weights& weights, Threshold<T>& threshold) {
    low_ = lowest_, high_ = m_;
    if (k_ > 8 * kSample) set_bracket(weights);
    sum_and_collect(weights);
    const double wanted = p_ * total_;
    if ((high_ < m_ && above_ >= wanted) ||
        (low_ > lowest_ && above_ + sum(weights_.data(), size_) < wanted)) {
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
    int64_t n = 0;
    Weight e[kBlock];
    T padded[kBlock];
    values_.resize(min(k_, int64_t(1) << 12) + kLanes);
    for (int64_t i = 0; i < k_; i += kBlock) {
      const int64_t size = min(kBlock, k_ - i), whole = (size + kGroup - 1) / kGroup * kGroup;
      const T* z = z_ + i;
      if (size < whole) copy_padded(z, size, padded, whole, kLowest), z = padded;
      weights(z, whole, e);
      fill(e + size, whole - size, Weight(0));
      if (values_.size() < n + kBlock + kLanes) values_.resize(min(2 * n, k_) + kBlock + kLanes);
      for (int64_t j = 0; j < whole; j += kGroup) {
        Vec<Weight> w[4], w_above[4];
        bool has_above = false;
        for (int g = 0; g < 4; ++g) {
          const int64_t at = j + g * kLanes;
          const Vec<T> v(z + at);
          w[g] = Vec<Weight>(e + at);
          w_above[g] = zero;
          if (all_less(v, low)) continue;
          has_above = true;
          w_above[g] = if_less(high, load_as<Weight>(z + at), w[g], zero);
          n += pack_between(v, low_, high_, values_.data() + n);
        }
        total = add(total, widened_sum(w));
        if (has_above) above = add(above, widened_sum(w_above));
      }
    }
    total_ = sum_of_lanes(total), above_ = sum_of_lanes(above);
    pad_and_weigh(weights, n);
  }

  // Makes the first n of values_ the entries of the bracket, and computes their weights.
  template <class Weights>
  void pad_and_weigh(const Weights& weights, int64_t n) {
    size_ = (n + kLanes - 1) / kLanes * kLanes;
    values_.resize(size_), weights_.resize(size_);
    fill(values_.data() + n, size_ - n, kLowest);
    weights(values_.data(), size_, weights_.data());
    fill(weights_.data() + n, size_ - n, 0.0);
  }

  static double sum(const double* x, int64_t n) {
    Vec<double> lanes(0.0);
    for (int64_t i = 0; i < n; i += kLanes) lanes = add(lanes, Vec<double>(x + i));
    return sum_of_lanes(lanes);
  }

  // Where `above` plus the mass of the largest of values_, none of which is above high_, reaches
  // `wanted`; false where a mass is too close to it. Overwrites values_.
  template <class Weights>
  bool find_in_bracket(const Weights& weights, double above, double wanted, double tolerance,
                       Threshold<T>& threshold) {
    Bisection<T> range(low_, next_after(high_, kInfinity<T>));
    bool halved = true;
    while (halved && size_ > kSorted) {
      double above_range = above;
      T middle;
      // A few steps, and then only the entries that are left.
      for (int i = 0; i < kSteps && (halved = range.halve(middle)); ++i) {
        const double mass = above + mass_at_least(values_.data(), weights_.data(), size_, middle);
        if (mass >= wanted)
          range.set_low(middle);
        else
          range.set_high(middle), above_range = mass;
      }
      above = above_range;
      int64_t n = 0;
      const T low = max(range.low(), -kLargest<T>), high = next_after(range.high(), kLowest);
      for (int64_t i = 0; i < size_; i += kLanes)
        n += pack_between(Vec<T>(values_.data() + i), low, high, values_.data() + n);
      pad_and_weigh(weights, n);
    }
    return walk(weights, above, wanted, tolerance, threshold);
  }

  // The same, by sorting.
  template <class Weights>
  bool walk(const Weights& weights, double mass, double wanted, double tolerance,
            Threshold<T>& threshold) {
    threshold = {kLowest, kAllTies};
    if (size_ == 0) return true;
    sort_descending(values_.data(), size_);
    weights(values_.data(), size_, weights_.data());
    double before = mass;
    threshold = {values_[0], 0};
    for (int64_t i = 0; i < size_ && values_[i] > kLowest && (i == 0 || mass < wanted); ++i) {
      if (values_[i] != threshold.value) threshold = {values_[i], 0};
      ++threshold.ties;
      before = mass;
      mass += weights_[i];
    }
    return before < wanted - tolerance && mass >= wanted + tolerance;
  }

  // A bracket that holds the threshold in nearly all rows, from entries at even distances. Those of
  // large weight are few, and have most of the variance: they are all collected.
  template <class Weights>
  void set_bracket(const Weights& weights) {
    T sample[kSample];
    copy_sample(z_, k_, sample);
    const T m = largest(sample, kSample);
    if (!(m > kLowest)) return;
    const T heavy = nth_largest_of(sample, kSample, kHeavySample, m, values_);
    if (heavy == kLowest) return;
    collect_between(z_, k_, next_after(heavy, kInfinity<T>), kInfinity<T>, values_);
    const int64_t n_heavy = values_.size();
    pad_and_weigh(weights, n_heavy);
    const double heavy_mass = sum(weights_.data(), size_);
    // The others of the sample stand for the others of the row.
    int64_t n = 0;
    for (int64_t i = 0; i < kSample; ++i)
      if (!(sample[i] > heavy)) sample[n++] = sample[i];
    const double scale = double(k_ - n_heavy) / double(n);
    const auto weigh_sample = [&] {
      values_.clear();
      values_.append(sample, n);
      pad_and_weigh(weights, n);
    };
    weigh_sample();
    const double total = heavy_mass + scale * sum(weights_.data(), size_), wanted = p_ * total;
    high_ = heavy;
    const auto value_at = [&](double mass) {
      Threshold<T> found;
      weigh_sample();
      find_in_bracket(weights, heavy_mass / scale, mass / scale, 0, found);
      return found.value;
    };
    const T middle = heavy_mass >= wanted ? m_ : value_at(wanted);
    weigh_sample();
    double variance = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double e = weights_[i] * (values_[i] >= middle ? 1 - p_ : p_);
      variance += e * e;
    }
    const double margin = kDeviations * scale * std::sqrt(variance);
    const T high = heavy_mass >= wanted - margin ? m_ : value_at(wanted - margin);
    if (heavy_mass >= wanted + margin)
      low_ = heavy;
    else if (wanted + margin < total)
      low_ = value_at(wanted + margin);
    high_ = high;
  }

  Buffer<T> values_;
  Buffer<double> weights_;
  const T* z_ = nullptr;
  int64_t k_ = 0, size_ = 0;
  T m_ = 0, lowest_ = 0, low_ = 0, high_ = 0;
  double p_ = 1, total_ = 0, above_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
