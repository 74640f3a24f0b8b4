// Sixteen rows of few classes at once, one in each lane; the arithmetic of row_kernel.h.
#pragma once

#include "chunk_kernel.h"
#include "losses.h"
#include "targets.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The probabilities of k times sixteen weights. There is one branch for all of them: a branch for
// each could not be predicted where some results are subnormal.
template <class T>
void normalize_lanes(const T* e, int64_t k, const Normalizer<T>& normalize, T* out, int64_t step) {
  bool normal = true;
  for (int64_t i = 0; i < k; ++i) normal &= normalize.all_normal(Vec<T>(e + i * kLanes));
  if (normal)
    for (int64_t i = 0; i < k; ++i) normalize.normal(Vec<T>(e + i * kLanes)).put(out + i * step);
  else
    for (int64_t i = 0; i < k; ++i)
      normalize.normal_or_subnormal(Vec<T>(e + i * kLanes)).put(out + i * step);
}

template <class T>
class SmallRows {
 public:
  SmallRows(Op op, int64_t k) : op_(op), k_(k) {
    for (int r = 0; r < kLanes; ++r) {
      c_[r] = c_low_[r] = r_[r] = r_low_[r] = max_exponent_[r] = 0;
      t_[r] = t_ln2_[r] = 1;
      min_difference_[r] = 0;
    }
  }

  void set_temperature(int r, const InverseTemperature<T>& beta) {
    c_[r] = beta.in_range ? beta.c : T(0), c_low_[r] = beta.in_range ? beta.c_low : T(0);
    r_[r] = beta.r, r_low_[r] = beta.r_low;
    t_[r] = beta.t;
    t_ln2_[r] = kLn2 * beta.t;
    min_difference_[r] = min_difference<T>(beta.t);
    max_exponent_[r] = beta.in_range ? Range<T>::max_exponent : T(0);
  }
  void set_gradient_scale(int r, double scale) { gradient_scale_[r] = gradient_factor_[r] = scale; }

  // For losses of smoothed labels, one per row, or of distributions, in the layout of z.
  void set_targets(const T* distribution, const int64_t* label, double smoothing) {
    more_than_label_ = true, distribution_ = distribution, label_ = label, smoothing_ = smoothing;
  }

  // z[i * 16 + r] is entry i of row r, and result[i * 16 + r] that of its result; afterwards
  // in_range tells which rows have one.
  LOGITLAB_FLATTEN void run(const T* z, T* result) {
    z_ = z;
    const Vec<T> c(c_), c_low(c_low_), rounding(Range<T>::rounding);
    Vec<T> m(-kInfinity<T>);
    for (int64_t i = 0; i < k_; ++i) m = larger(entry(i), m);
    m.put(max_);
    if (more_than_label_) sum_targets(m);
    const Vec<T> mc = mul(m, c);
    all_in_range_ = all_less(larger(mc, sub(Vec<T>(T(0)), mc)), Vec<T>(max_exponent_));
    const Vec<T> n = sub(fma(m, c, rounding), rounding);
    const Vec<T> offset = sub(Vec<T>(Range<T>::rounding + T(Range<T>::lift + Range<T>::bias)), n);
    Vec<T> floor;
    round_to(mul(sub(widen(n), Vec<double>(Range<T>::drop)), Vec<double>(t_ln2_)), floor);
    if (op_ == Op::softmax)
      softmax(c, c_low, offset, floor, result);
    else if (op_ == Op::loss_and_gradient)
      logarithms<true>(m, n, c, c_low, offset, floor, result);
    else
      logarithms<false>(m, n, c, c_low, offset, floor, result);
  }

  bool all_in_range() const { return all_in_range_; }
  bool in_range(int r) const {
    return absolute(max_[r] * c_[r]) < max_exponent_[r] && sum_[r] < kInfinity<double>;
  }
  bool loss_in_range(int r) const {
    return in_range(r) &&
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

  void store_sums(const LaneSums<T>& sums) {
    sums.put(sum_, sum_error_);
    for (int r = 0; r < kLanes; ++r) sum_error_[r] = fast_two_sum(sum_[r], sum_error_[r]);
    all_in_range_ = all_in_range_ && all_less(Vec<double>(sum_), Vec<double>(kInfinity<double>));
  }

  // Rows whose sum without the maximum is too small to be accurate are out of range.
  void exclude_small_sums(const Vec<double>& others) {
    if (all_less(Vec<double>(double(k_) * Range<T>::min_visible), others)) return;
    others.put(others_);
    for (int r = 0; r < kLanes; ++r)
      if (floor_is_visible(others_[r], k_, t_[r], max_[r])) {
        sum_[r] = kInfinity<double>;
        all_in_range_ = false;
      }
  }

  void softmax(const Vec<T>& c, const Vec<T>& c_low, const Vec<T>& rounding, const Vec<T>& floor,
               T* result) {
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
    store_sums(sums);
    const Vec<double> one(1.0), sum(sum_), high = div(one, sum);
    Vec<T> factor, factor_low(T(0));
    round_to(high, factor);
    if constexpr (kCompensated<T>)
      factor_low =
          mul(sub(fma(sub(Vec<double>(0.0), high), sum, one), mul(high, Vec<double>(sum_error_))),
              high);
    normalize_lanes(result, k_, Normalizer<T>(factor, factor_low), result, kLanes);
  }

  // The results that follow from log sum exp((z - m)/T) = log(1 + others): log_softmax, logsumexp,
  // losses.
  template <bool StoreWeights>
  void logarithms(const Vec<T>& m, const Vec<T>& n, const Vec<T>& c, const Vec<T>& c_low,
                  const Vec<T>& rounding, const Vec<T>& floor, T* result) {
    LaneSums<T> sums;
    Vec<T> below_max(T(0));
    const Vec<T> one(T(1));
    for (int64_t i = 0; i < k_; ++i) {
      Vec<T> error;
      const Vec<T> z = entry(i),
                   e = weights(z, c, c_low, rounding, floor, kCompensated<T> ? &error : nullptr);
      if constexpr (StoreWeights) e.put(result + i * kLanes);
      if constexpr (kCompensated<T>) sums.accumulate_error(unless_equal(z, m, error));
      sums.accumulate(unless_equal(z, m, e));
      below_max = add(below_max, unless_equal(z, m, one));
    }
    store_sums(sums);
    // The weight of the largest entry is 2^(m c - N); each tie of it adds 1 to `others`.
    const Vec<double> x = widen(m);
    Vec<double> top_low;
    const Vec<double> top = exp2_lanes(add(fms(x, widen(c), widen(n)), mul(x, widen(c_low))),
                                       kCompensated<T> ? &top_low : nullptr);
    const Vec<double> ties = sub(Vec<double>(double(k_ - 1)), widen(below_max));
    const Vec<double> sum = mul(Vec<double>(sum_), Vec<double>(kUnlift<T>)), share = div(sum, top);
    const Vec<double> others = add(ties, share);
    Vec<double> others_low(0.0), log_low;
    if constexpr (kCompensated<T>) {
      const Vec<double> error = mul(Vec<double>(sum_error_), Vec<double>(kUnlift<T>));
      const Vec<double> zero(0.0), part = sub(others, ties);
      Vec<double> low = fma(sub(zero, share), top, sum);
      low = div(add(low, sub(error, mul(share, top_low))), top);
      // The rounding error of ties + share is added.
      others_low = add(low, add(sub(ties, sub(others, part)), sub(share, part)));
    }
    const Vec<double> log = log1p_lanes(others, others_low, log_low);
    if (op_ == Op::loss || op_ == Op::loss_and_gradient) {
      others.put(others_);
      add(log, log_low).put(log_sum_);
      if constexpr (StoreWeights) write_gradient(top, others, result);
    } else if (op_ == Op::logsumexp) {
      if constexpr (Range<T>::min_visible > 0) exclude_small_sums(others);
      write_logsumexp(x, log, log_low, result);
    } else {
      Vec<T> minus_log_sum;
      round_to(sub(Vec<double>(0.0), add(log, log_low)), minus_log_sum);
      const LogProbability<T> log_p{m, Vec<T>(r_), Vec<T>(r_low_), Vec<T>(min_difference_),
                                    minus_log_sum};
      for (int64_t i = 0; i < k_; ++i) log_p(entry(i)).put(result + i * kLanes);
    }
  }

  void write_gradient(const Vec<double>& top, const Vec<double>& others, T* result) const {
    const Vec<double> sum = mul(top, add(Vec<double>(1.0), others));
    Vec<T> factor;
    round_to(div(mul(Vec<double>(gradient_factor_), Vec<double>(kUnlift<T>)), sum), factor);
    normalize_lanes(result, k_, Normalizer<T>(factor), result, kLanes);
    if (more_than_label_) subtract_targets(result);
  }

  // m + T (log + log_low).
  void write_logsumexp(const Vec<double>& m, const Vec<double>& log, const Vec<double>& log_low,
                       T* result) const {
    const Vec<double> t(t_), product = mul(t, log), total = add(m, product), back = sub(total, m);
    const Vec<double> error = add(fms(t, log, product), mul(t, log_low));
    Vec<T> rounded;
    round_to(add(total, add(error, add(sub(m, sub(total, back)), sub(product, back)))), rounded);
    rounded.put(result);
  }

  const Op op_;
  const int64_t k_;
  const T* z_ = nullptr;
  // Per row: the inverse temperature as in InverseTemperature, and T.
  T c_[kLanes], c_low_[kLanes], r_[kLanes], r_low_[kLanes], min_difference_[kLanes],
      max_exponent_[kLanes];
  double t_[kLanes], t_ln2_[kLanes];
  // Per row: the largest entry, the sum of the weights, and what follows from it.
  T max_[kLanes];
  double sum_[kLanes], sum_error_[kLanes], others_[kLanes], log_sum_[kLanes];
  bool all_in_range_ = false;
  // Of the losses; gradient_factor_ is gradient_scale_ times Y.
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
