// What sixteen rows of one chunk have once each, one row in each lane: the temperature, the largest
// entry, the sum of the weights, and what follows from them.
#pragma once

#include "chunk_kernel.h"
#include "exact_row.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
class LaneRows {
 public:
  void set_temperature(int r, const InverseTemperature<T>& beta) {
    c_[r] = beta.in_range ? beta.c : T(0), c_low_[r] = beta.in_range ? beta.c_low : T(0);
    r_[r] = beta.r, r_low_[r] = beta.r_low;
    t_[r] = beta.t;
    t_ln2_[r] = kLn2 * beta.t;
    min_difference_[r] = min_difference<T>(beta.t);
    max_exponent_[r] = beta.in_range ? Range<T>::max_exponent : T(0);
  }

  // After the sums, whether all rows are in range, and whether row r is.
  bool all_in_range() const { return all_in_range_; }
  bool in_range(int r) const {
    return absolute(max_[r] * c_[r]) < max_exponent_[r] && sum_[r] < kInfinity<double>;
  }

 protected:
  LaneRows(Op op, int64_t k) : op_(op), k_(k) {
    for (int r = 0; r < kLanes; ++r) {
      c_[r] = c_low_[r] = r_[r] = r_low_[r] = max_exponent_[r] = 0;
      t_[r] = t_ln2_[r] = 1;
      min_difference_[r] = 0;
    }
  }

  // The largest entries, from which the exponents N of the rows follow, and the constants of
  // exponent_frame.
  void set_max(const Vec<T>& m) {
    m.put(max_);
    const Vec<T> c(c_), rounding(Range<T>::rounding), mc = mul(m, c);
    all_in_range_ = all_less(larger(mc, sub(Vec<T>(T(0)), mc)), Vec<T>(max_exponent_));
    const Vec<T> n = sub(fma(m, c, rounding), rounding);
    n.put(exponent_);
    sub(Vec<T>(Range<T>::rounding + T(Range<T>::lift + Range<T>::bias)), n).put(rounding_);
    Vec<T> floor;
    round_to(mul(sub(widen(n), Vec<double>(Range<T>::drop)), Vec<double>(t_ln2_)), floor);
    floor.put(floor_);
  }

  // The sums of the weights, and their rounding errors.
  void set_sums(const Vec<double>& sum, const Vec<double>& error) {
    const Vec<double> total = add(sum, error);
    total.put(sum_);
    sub(error, sub(total, sum)).put(sum_error_);
    all_in_range_ = all_in_range_ && all_less(total, Vec<double>(kInfinity<double>));
  }

  // The reciprocals of the sums, by which weights become probabilities.
  void reciprocals(Vec<T>& factor, Vec<T>& factor_low) const {
    const Vec<double> one(1.0), zero(0.0), sum(sum_), high = div(one, sum);
    round_to(high, factor);
    factor_low = Vec<T>(T(0));
    if constexpr (kCompensated<T>)
      factor_low =
          mul(sub(fma(sub(zero, high), sum, one), mul(high, Vec<double>(sum_error_))), high);
  }

  // log sum exp((z - m)/T) = log(1 + others) = high + low, of sums without the largest entries, and
  // the weight `top` of a largest entry, over 2^N. `entries` are the classes that below_max counts
  // the entries below the largest of.
  struct Logarithms {
    Vec<double> high, low, top, others;
  };
  Logarithms logarithms_of_sums(int64_t entries, const Vec<T>& below_max) const {
    // The weight of the largest entry is 2^(m c - N); each tie of it adds 1 to `others`.
    const Vec<double> x = widen(Vec<T>(max_)), c = widen(Vec<T>(c_)), c_low = widen(Vec<T>(c_low_));
    const Vec<double> zero(0.0), unlift(kUnlift<T>);
    Logarithms log;
    Vec<double> top_low;
    log.top = exp2_lanes(add(fms(x, c, widen(Vec<T>(exponent_))), mul(x, c_low)),
                         kCompensated<T> ? &top_low : nullptr);
    const Vec<double> ties = sub(Vec<double>(double(entries - 1)), widen(below_max));
    const Vec<double> sum = mul(Vec<double>(sum_), unlift), share = div(sum, log.top);
    log.others = add(ties, share);
    Vec<double> others_low(0.0);
    if constexpr (kCompensated<T>) {
      const Vec<double> error = mul(Vec<double>(sum_error_), unlift);
      const Vec<double> part = sub(log.others, ties);
      Vec<double> low = fma(sub(zero, share), log.top, sum);
      low = div(add(low, sub(error, mul(share, top_low))), log.top);
      // The rounding error of ties + share is added.
      others_low = add(low, add(sub(ties, sub(log.others, part)), sub(share, part)));
    }
    log.high = log1p_lanes(log.others, others_low, log.low);
    return log;
  }

  // Of rows of one temperature or several, in lanes.
  LogProbability<T> log_probability(const Logarithms& log) const {
    Vec<T> minus_log_sum;
    round_to(sub(Vec<double>(0.0), add(log.high, log.low)), minus_log_sum);
    return {Vec<T>(max_), Vec<T>(r_), Vec<T>(r_low_), Vec<T>(min_difference_), minus_log_sum};
  }

  // By which the weights become the gradient of a loss, `scale` times the probabilities.
  Vec<T> gradient_factors(const Logarithms& log, const Vec<double>& scale) const {
    Vec<T> factor;
    const Vec<double> sum = mul(log.top, add(Vec<double>(1.0), log.others));
    round_to(div(mul(scale, Vec<double>(kUnlift<T>)), sum), factor);
    return factor;
  }

  // m + T log(1 + others). Rows whose sum without the maximum is too small to be accurate are out
  // of range.
  void write_logsumexp(const Logarithms& log, T* result) {
    if constexpr (Range<T>::min_visible > 0) exclude_small_sums(log.others);
    const Vec<double> m = widen(Vec<T>(max_)), t(t_), product = mul(t, log.high);
    const Vec<double> total = add(m, product), back = sub(total, m);
    const Vec<double> error = add(fms(t, log.high, product), mul(t, log.low));
    Vec<T> rounded;
    round_to(add(total, add(error, add(sub(m, sub(total, back)), sub(product, back)))), rounded);
    rounded.put(result);
  }

  const Op op_;
  const int64_t k_;
  // Per row: the inverse temperature as in InverseTemperature, and T.
  T c_[kLanes], c_low_[kLanes], r_[kLanes], r_low_[kLanes], min_difference_[kLanes],
      max_exponent_[kLanes];
  double t_[kLanes], t_ln2_[kLanes];
  // Per row: the largest entry, the members of ExponentFrame, and the sum of the weights.
  T max_[kLanes], exponent_[kLanes], rounding_[kLanes], floor_[kLanes];
  double sum_[kLanes], sum_error_[kLanes];
  bool all_in_range_ = false;

 private:
  void exclude_small_sums(const Vec<double>& others) {
    if (all_less(Vec<double>(double(k_) * Range<T>::min_visible), others)) return;
    double lane[kLanes];
    others.put(lane);
    for (int r = 0; r < kLanes; ++r)
      if (floor_is_visible(lane[r], k_, t_[r], max_[r])) {
        sum_[r] = kInfinity<double>;
        all_in_range_ = false;
      }
  }
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
