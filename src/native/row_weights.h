// The weights exp((z - m)/t) of the entries of a row, for the stages of truncation.
//
// In float they have few digits: where the sums are too close to decide, all is computed again with
// weights in double.
#pragma once

#include "bisection.h"
#include "exact_row.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

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

// Entries of a row for which a stage computes the weights at once.
constexpr int64_t kWeightBlock = 512;

// Calls use(z, w) with 64 entries and their weights until the row ends; the last are padded with
// entries of -inf and weights of 0.
template <class T, class Weights, class Use>
LOGITLAB_INLINE void for_each_group(const T* z, int64_t k, const Weights& weights, Use use) {
  using Weight = typename Weights::Weight;
  Weight e[kWeightBlock];
  T padded[kWeightBlock];
  for (int64_t i = 0; i < k; i += kWeightBlock) {
    const int64_t size = min(kWeightBlock, k - i),
                  whole = (size + kGroupSize - 1) / kGroupSize * kGroupSize;
    const T* block = z + i;
    if (size < whole) copy_padded(block, size, padded, whole, -kInfinity<T>), block = padded;
    weights(block, whole, e);
    fill(e + size, whole - size, Weight(0));
    for (int64_t j = 0; j < whole; j += kGroupSize) use(block + j, e + j);
  }
}

// How far below the largest entry, m, the entries of k are that together have less than 1 - p of
// the mass; and the least of the others.
inline double reach_of_share(double p, int64_t k, double t) {
  return t * (log1p_of(double(k) / max(1 - p, 0x1p-60)) + 1);
}
template <class T>
T lowest_within(double reach, T m) {
  const double lowest = double(m) - reach;
  return lowest > -double(kLargest<T>) ? next_after(T(lowest), -kInfinity<T>) : -kInfinity<T>;
}

// Entries, and their weights, for the search of a threshold.
template <class T>
struct WeightedEntries {
  Buffer<T> values;
  Buffer<double> weights;

  // Pads the values to a multiple of sixteen, with weights of 0, and computes the other weights.
  template <class Weights>
  void weigh(const Weights& weights_of) {
    const int64_t n = values.size(), size = (n + kLanes - 1) / kLanes * kLanes;
    values.resize(size), weights.resize(size);
    fill(values.data() + n, size - n, -kInfinity<T>);
    weights_of(values.data(), size, weights.data());
    fill(weights.data() + n, size - n, 0.0);
  }
  double mass() const {
    Vec<double> lanes(0.0);
    for (int64_t i = 0; i < weights.size(); i += kLanes)
      lanes = add(lanes, Vec<double>(weights.data() + i));
    return sum_of_lanes(lanes);
  }
  void release() { values.release(), weights.release(); }
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
