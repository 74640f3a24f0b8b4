// The entropy of rows, and the Kullback-Leibler divergence of pairs of rows.
//
// With m the largest entry, x = (m - z)/T and p the softmax, the entropy is log sum e^-x + sum p x.
// The divergence is the sum of p (e^d - 1 - d) with d = log(q/p), which has no negative term.
#pragma once

#include "chunk_kernel.h"
#include "scores_args.h"
#include "threads.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Calls f(i, n) for every sixteen entries of k, n of them.
template <class F>
LOGITLAB_INLINE void each_lanes(int64_t k, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) f(i, kLanes);
  if (i < k) f(i, int(k - i));
}
template <class T>
LOGITLAB_INLINE Vec<T> load_lanes(const T* p, int n, T padding) {
  return n == kLanes ? Vec<T>(p) : load_first(p, n, padding);
}

// Sixteen sums in double of the scores of rows of type T, compensated where those are no narrower.
template <class T>
struct ScoreSums {
  LaneSums<double> sums;
  void accumulate(const Vec<double>& x) {
    if constexpr (kCompensated<T>)
      sums.accumulate(x);
    else
      sums.sum = add(sums.sum, x);
  }
  double total() const { return lane_sum(sums.sum) + lane_sum(sums.error); }
};

// NaN where the row is out of range.
template <class T>
LOGITLAB_FLATTEN double row_entropy(const T* z, int64_t k, const InverseTemperature<T>& beta) {
  const T m = largest(z, k);
  if (!(absolute(m * beta.c) < Range<T>::max_exponent)) return kNaN<double>;
  const ExponentFrame<T> frame = exponent_frame(m, beta);
  const Vec<T> c(beta.c), c_low(beta.c_low), rounding(frame.rounding), floor(frame.floor), top(m),
      r(beta.r), one(T(1));
  // Beyond it a weight does not count; the bound replaces an infinite distance.
  const Vec<T> most(T(2 * Range<T>::drop * beta.t));
  ScoreSums<T> sum, sum_x;
  int64_t below = 0;
  Vec<T> others(T(0));
  for (int64_t i = 0; i < k; i += kGroupSize) {
    Vec<T> w(T(0)), wx(T(0));
    for (int64_t j = i; j < min(k, i + kGroupSize); j += kLanes) {
      const Vec<T> v = load_lanes(z + j, int(min<int64_t>(kLanes, k - j)), -kInfinity<T>);
      const Vec<T> e = unless_equal(v, top, weights(v, c, c_low, rounding, floor));
      const Vec<T> x = mul(smaller(sub(top, v), most), r);
      others = add(others, unless_equal(v, top, one));
      if constexpr (kCompensated<T>) {
        sum.accumulate(e), sum_x.accumulate(mul(e, x));
      } else {
        w = add(w, e), wx = fma(e, x, wx);
      }
    }
    if constexpr (!kCompensated<T>) sum.accumulate(widen(w)), sum_x.accumulate(widen(wx));
    if (i % (1 << 20) == 0 || i + kGroupSize >= k) {  // a count that float represents exactly
      T lane[kLanes];
      others.put(lane);
      for (T n : lane) below += int64_t(n);
      others = Vec<T>(T(0));
    }
  }
  const int64_t entries = (k + kLanes - 1) / kLanes * kLanes;
  const double x = double(m), c_wide = double(beta.c);
  const double weight =
      exp2_reduced(std::fma(x, c_wide, -double(frame.exponent)) + x * double(beta.c_low));
  const double unit = kUnlift<T> / weight, ties = double(entries - 1 - below);
  const double rest = ties + sum.total() * unit;
  return log1p_of(rest) + sum_x.total() * unit / (1 + rest);
}

// The numbers that the divergence needs of one of two rows.
struct Distribution {
  double m, exponent, rounding, floor;  // as in exponent_frame
  double sum;                           // of the weights, over 2^lift
};

// Widens sixteen entries.
template <class T>
LOGITLAB_INLINE Vec<double> wide_lanes(const T* z, int n) {
  return widen(load_lanes(z, n, -kInfinity<T>));
}

template <class T>
LOGITLAB_FLATTEN bool sum_distribution(const T* z, int64_t k,
                                       const InverseTemperature<double>& beta, Distribution& d) {
  d.m = double(largest(z, k));
  if (!(absolute(d.m * beta.c) < Range<double>::max_exponent)) return false;
  const ExponentFrame<double> frame = exponent_frame(d.m, beta);
  d.exponent = frame.exponent, d.rounding = frame.rounding, d.floor = frame.floor;
  const Vec<double> c(beta.c), c_low(beta.c_low), rounding(frame.rounding), floor(frame.floor),
      lowest(-kInfinity<double>);
  ScoreSums<T> sum;
  each_lanes(k, [&](int64_t i, int n) {
    const Vec<double> v = wide_lanes(z + i, n);
    sum.accumulate(unless_equal(v, lowest, weights(v, c, c_low, rounding, floor)));
  });
  d.sum = sum.total();
  return d.sum < kInfinity<double>;
}

// e^x - 1 - x of |x| < 1/2.
inline Vec<double> expm1_minus_x(const Vec<double>& x) {
  Vec<double> series(1.0);
  for (int n = 17; n > 2; --n) series = fma(mul(x, Vec<double>(1.0 / n)), series, Vec<double>(1.0));
  return mul(mul(mul(x, x), Vec<double>(0.5)), series);
}

// NaN where a row is out of range.
template <class T>
LOGITLAB_FLATTEN double row_divergence(const T* z, const T* other, int64_t k,
                                       const InverseTemperature<double>& beta) {
  Distribution p, q;
  if (!sum_distribution(z, k, beta, p) || !sum_distribution(other, k, beta, q)) return kNaN<double>;
  const Vec<double> c(beta.c), c_low(beta.c_low), p_rounding(p.rounding), p_floor(p.floor),
      q_rounding(q.rounding), q_floor(q.floor), lowest(-kInfinity<double>), zero(0.0), r(beta.r),
      r_low(beta.r_low), p_factor(1 / p.sum), q_factor(1 / q.sum), limit(0.125);
  const Vec<double> one(1.0), exp_c(kLog2E), exp_c_low(kLog2ELow),
      exp_rounding(Range<double>::rounding + Range<double>::bias);
  // log(sum_q / sum_p) of sums over 2^N.
  const double shift = q.exponent - p.exponent, ratio = q.sum / p.sum;
  const double log_ratio = (ratio < 1 ? -log1p_of(p.sum / q.sum - 1) : log1p_of(ratio - 1)) +
                           (shift * kLn2 + shift * kLn2Low);
  auto probability = [&](const Vec<double>& v, const Vec<double>& rounding,
                         const Vec<double>& floor, const Vec<double>& factor) {
    return unless_equal(v, lowest, mul(weights(v, c, c_low, rounding, floor), factor));
  };
  // An excluded entry of both rows has no difference.
  auto difference = [&](const Vec<double>& a, const Vec<double>& b) {
    return unless_equal(larger(a, b), lowest, sub(b, a));
  };
  // Where all logits are close, the logarithm of the ratio is that of a sum of small numbers.
  bool close = true;
  ScoreSums<T> mean;
  each_lanes(k, [&](int64_t i, int n) {
    if (!close) return;
    const Vec<double> a = wide_lanes(z + i, n), b = wide_lanes(other + i, n);
    const Vec<double> x = difference(a, b), delta = fma(x, r, mul(x, r_low));
    close = all_less(larger(delta, sub(zero, delta)), limit);
    const Vec<double> w = probability(a, p_rounding, p_floor, p_factor);
    mean.accumulate(mul(w, add(delta, expm1_minus_x(delta))));
  });
  const Vec<double> minus_log(close ? -log1p_of(mean.total()) : -log_ratio);
  ScoreSums<T> total;
  each_lanes(k, [&](int64_t i, int n) {
    const Vec<double> a = wide_lanes(z + i, n), b = wide_lanes(other + i, n);
    const Vec<double> w = probability(a, p_rounding, p_floor, p_factor);
    const Vec<double> v = probability(b, q_rounding, q_floor, q_factor), x = difference(a, b);
    const Vec<double> d = fma(x, r, fma(x, r_low, minus_log));
    const Vec<double> size = larger(d, sub(zero, d)), near = mul(w, expm1_minus_x(d));
    Vec<double> far = sub(sub(v, w), mul(w, d));
    if constexpr (kCompensated<T>) {
      // An error of d that all classes share has no effect if e^d has it too.
      const Vec<double> x = larger(Vec<double>(-16.0), smaller(d, Vec<double>(16.0)));
      const Vec<double> e = weights_above_floor(x, exp_c, exp_c_low, exp_rounding);
      far = if_less(size, Vec<double>(16.0), mul(w, sub(sub(e, one), d)), far);
    }
    const Vec<double> term = if_less(size, Vec<double>(0.5), near, far);
    // Of an excluded entry of z the term is q.
    const Vec<double> excluded = sub(v, unless_equal(a, lowest, v));
    total.accumulate(add(unless_equal(a, lowest, term), excluded));
  });
  return total.total();
}

template <class T>
void scores_of_rows(const ScoreArgs& args, int64_t first, int64_t last) {
  const T* z = static_cast<const T*>(args.z);
  const T* other = static_cast<const T*>(args.other);
  InverseTemperature<T> beta{};
  InverseTemperature<double> wide_beta{};
  for (int64_t r = first; r < last; ++r) {
    if (r == first || args.t[r] != args.t[r - 1]) {
      beta = inverse_temperature<T>(args.t[r]);
      wide_beta = inverse_temperature<double>(args.t[r]);
    }
    const T* row = z + r * args.k;
    if (!beta.in_range)
      args.out[r] = kNaN<double>;
    else if (other)
      args.out[r] = row_divergence(row, other + r * args.k, args.k, wide_beta);
    else
      args.out[r] = row_entropy(row, args.k, beta);
  }
}

void compute_scores(const ScoreArgs& args, int64_t first, int64_t last) {
  if (args.kind == kFloat32)
    scores_of_rows<float>(args, first, last);
  else
    scores_of_rows<double>(args, first, last);
}

}  // namespace

extern const ScoreFunction scores;
const ScoreFunction scores = compute_scores;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
