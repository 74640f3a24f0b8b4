// Sixteen rows of few classes at once, one in each lane; the arithmetic of row_kernel.h.
#pragma once

#include "lane_rows.h"
#include "losses.h"
#include "targets.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The probabilities of k times sixteen weights. There is one branch for all of them: a branch for
// each could not be predicted where some results are subnormal.
template <class T>
void normalize_lanes(const T* e, int64_t k, const Normalizer<T>& normalize, T* out, int64_t step) {
  const Vec<T> inf(kInfinity<T>);
  Vec<T> least[4] = {inf, inf, inf, inf};
  int64_t i = 0;
  for (; i + 4 <= k; i += 4)
    for (int j = 0; j < 4; ++j) least[j] = smaller(Vec<T>(e + (i + j) * kLanes), least[j]);
  for (; i < k; ++i) least[0] = smaller(Vec<T>(e + i * kLanes), least[0]);
  if (normalize.all_normal(smaller(smaller(least[0], least[1]), smaller(least[2], least[3]))))
    for (int64_t i = 0; i < k; ++i) normalize.normal(Vec<T>(e + i * kLanes)).put(out + i * step);
  else
    for (int64_t i = 0; i < k; ++i)
      normalize.normal_or_subnormal(Vec<T>(e + i * kLanes)).put(out + i * step);
}

template <class T>
class SmallRows : public LaneRows<T> {
  using Base = LaneRows<T>;
  using Base::floor_;
  using Base::op_, Base::k_, Base::t_, Base::max_, Base::c_, Base::c_low_, Base::rounding_;

 public:
  SmallRows(Op op, int64_t k) : Base(op, k) {}

  void set_gradient_scale(int r, double scale) { gradient_scale_[r] = gradient_factor_[r] = scale; }

  // For losses of smoothed labels, one per row, or of distributions, in the layout of z.
  void set_targets(const T* distribution, const int64_t* label, double smoothing) {
    more_than_label_ = true, distribution_ = distribution, label_ = label, smoothing_ = smoothing;
  }

  // z[i * 16 + r] is entry i of row r, and result[i * 16 + r] that of its result; afterwards
  // in_range tells which rows have one.
  LOGITLAB_FLATTEN void run(const T* z, T* result) {
    z_ = z;
    const Vec<T> m = largest_entries();
    this->set_max(m);
    if (more_than_label_) sum_targets(m);
    if (op_ == Op::softmax)
      softmax(result);
    else if (op_ == Op::loss_and_gradient)
      logarithms<true>(m, result);
    else
      logarithms<false>(m, result);
  }

  bool loss_in_range(int r) const {
    return this->in_range(r) &&
           (more_than_label_ ? gradient_in_range(targets_[r], gradient_scale_[r], t_[r])
                             : gradient_in_range(gradient_scale_[r]));
  }

  // The loss of row r, after run(); corrects the gradient at the label, which is negative where
  // there is a distribution.
  double loss(int r, int64_t label, T* result) const {
    const T z = label < 0 ? T(0) : z_[label * kLanes + r];
    if (op_ == Op::loss_and_gradient && label >= 0) {
      T& g = result[label * kLanes + r];
      g = more_than_label_
              ? label_gradient(g, z, max_[r], others_[r], gradient_scale_[r], targets_[r])
              : label_gradient(g, z, max_[r], others_[r], gradient_scale_[r]);
    }
    if (more_than_label_) return targets_[r].total * log_sum_[r] + targets_[r].distance / t_[r];
    return log_sum_[r] + (double(max_[r]) - double(z)) / t_[r];
  }

 private:
  Vec<T> entry(int64_t i) const { return Vec<T>(z_ + i * kLanes); }

  // NaN is ignored.
  Vec<T> largest_entries() const {
    const Vec<T> lowest(-kInfinity<T>);
    Vec<T> m[4] = {lowest, lowest, lowest, lowest};
    int64_t i = 0;
    for (; i + 4 <= k_; i += 4)
      for (int j = 0; j < 4; ++j) m[j] = larger(entry(i + j), m[j]);
    for (; i < k_; ++i) m[0] = larger(entry(i), m[0]);
    return larger(larger(m[0], m[1]), larger(m[2], m[3]));
  }

  void sum_targets(const Vec<T>& m) {
    const Vec<T> one(T(1)), lowest(-kInfinity<T>);
    LaneSums<T> target, target_below_max, distance, class_distance;
    Vec<T> classes(T(0));
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<T> z = entry(i);
      if (distribution_) {
        const Vec<T> t(distribution_ + i * kLanes);
        target.accumulate(t);
        target_below_max.accumulate(unless_equal(z, m, t));
        accumulate_distance(distance, t, m, z);
      }
      if (smoothing_ > 0) {
        classes = add(classes, unless_equal(z, lowest, one));
        class_distance.accumulate(unless_equal(z, lowest, sub(m, z)));
      }
    }
    double sums[4][kLanes], errors[kLanes];
    T count[kLanes];
    target.put(sums[0], errors);
    target_below_max.put(sums[1], errors);
    distance.put(sums[2], errors);
    class_distance.put(sums[3], errors);
    classes.put(count);
    for (int r = 0; r < kLanes; ++r) {
      const TargetSums row{sums[0][r], sums[1][r], sums[2][r], double(count[r]), sums[3][r]};
      targets_[r] =
          distribution_
              ? target_totals(row, smoothing_)
              : label_totals(row, smoothing_, double(z_[label_[r] * kLanes + r]), double(max_[r]));
      gradient_factor_[r] = gradient_scale_[r] * targets_[r].total;
    }
  }

  void subtract_targets(T* result) const {
    T minus_a[kLanes], minus_b[kLanes], dominant_max[kLanes], gradient_at_max[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      minus_a[r] = T(-gradient_scale_[r] * targets_[r].a);
      minus_b[r] = T(-gradient_scale_[r] * targets_[r].b);
      dominant_max[r] = TargetStep<T>::max_if_dominant(max_[r], others_[r]);
      gradient_at_max[r] =
          TargetStep<T>::dominant_gradient(targets_[r], others_[r], gradient_scale_[r]);
    }
    const TargetStep<T> step{Vec<T>(minus_a), Vec<T>(minus_b), Vec<T>(dominant_max),
                             Vec<T>(gradient_at_max), Vec<T>(-kInfinity<T>)};
    const Vec<T> zero(T(0));
    for (int64_t i = 0; i < k_; ++i)
      step(Vec<T>(result + i * kLanes), entry(i),
           distribution_ ? Vec<T>(distribution_ + i * kLanes) : zero)
          .put(result + i * kLanes);
  }

  void softmax(T* result) {
    const Vec<T> c(c_), c_low(c_low_), rounding(rounding_), floor(floor_);
    LaneSums<T> sums;
    for (int64_t i = 0; i < k_; i += 2) {
      Vec<T> x = weights(entry(i), c, c_low, rounding, floor);
      x.put(result + i * kLanes);
      if (i + 1 < k_) {
        const Vec<T> y = weights(entry(i + 1), c, c_low, rounding, floor);
        y.put(result + (i + 1) * kLanes);
        x = add(x, y);
      }
      sums.accumulate(x);
    }
    this->set_sums(sums.sum, sums.rounding_error());
    Vec<T> factor, factor_low;
    this->reciprocals(factor, factor_low);
    normalize_lanes(result, k_, Normalizer<T>(factor, factor_low), result, kLanes);
  }

  // The results that follow from log sum exp((z - m)/T): log_softmax, logsumexp, losses.
  template <bool StoreWeights>
  void logarithms(const Vec<T>& m, T* result) {
    const Vec<T> c(c_), c_low(c_low_), rounding(rounding_), floor(floor_), one(T(1));
    LaneSums<T> sums;
    Vec<T> below_max(T(0));
    for (int64_t i = 0; i < k_; ++i) {
      Vec<T> error;
      const Vec<T> z = entry(i),
                   e = weights(z, c, c_low, rounding, floor, kCompensated<T> ? &error : nullptr);
      if constexpr (StoreWeights) e.put(result + i * kLanes);
      if constexpr (kCompensated<T>) sums.accumulate_error(unless_equal(z, m, error));
      sums.accumulate(unless_equal(z, m, e));
      below_max = add(below_max, unless_equal(z, m, one));
    }
    this->set_sums(sums.sum, sums.rounding_error());
    const typename Base::Logarithms log = this->logarithms_of_sums(k_, below_max);
    if (op_ == Op::loss || op_ == Op::loss_and_gradient) {
      log.others.put(others_);
      add(log.high, log.low).put(log_sum_);
      if constexpr (StoreWeights) {
        const Vec<T> factor = this->gradient_factors(log, Vec<double>(gradient_factor_));
        normalize_lanes(result, k_, Normalizer<T>(factor), result, kLanes);
        if (more_than_label_) subtract_targets(result);
      }
    } else if (op_ == Op::logsumexp) {
      this->write_logsumexp(log, result);
    } else {
      const LogProbability<T> log_p = this->log_probability(log);
      for (int64_t i = 0; i < k_; ++i) log_p(entry(i)).put(result + i * kLanes);
    }
  }

  const T* z_ = nullptr;
  // Of the losses; gradient_factor_ is gradient_scale_ times Y.
  double others_[kLanes], log_sum_[kLanes];
  double gradient_scale_[kLanes] = {}, gradient_factor_[kLanes] = {};
  bool more_than_label_ = false;
  const T* distribution_ = nullptr;
  const int64_t* label_ = nullptr;
  double smoothing_ = 0;
  TargetTotals targets_[kLanes];
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
