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

// Adds to sums in double of the scores of rows of type T, compensated where T is no narrower.
template <class T>
LOGITLAB_INLINE void accumulate_score(LaneSums<double>& sums, const Vec<double>& x) {
  if constexpr (kCompensated<T>)
    sums.accumulate(x);
  else
    sums.sum = add(sums.sum, x);
}
inline double total_score(const LaneSums<double>& sums) {
  return lane_sum(sums.sum) + lane_sum(sums.error);
}

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
  LaneSums<double> sum, sum_x;
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
        accumulate_score<T>(sum, e), accumulate_score<T>(sum_x, mul(e, x));
      } else {
        w = add(w, e), wx = fma(e, x, wx);
      }
    }
    if constexpr (!kCompensated<T>)
      accumulate_score<T>(sum, widen(w)), accumulate_score<T>(sum_x, widen(wx));
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
  const double rest = ties + total_score(sum) * unit;
  return log1p_of(rest) + total_score(sum_x) * unit / (1 + rest);
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

// The weights of rows up to this length are stored, others are computed again.
constexpr int64_t kMaxStoredRow = int64_t(1) << 18;

// Writes the weights where `stored` is not null.
template <class T>
LOGITLAB_FLATTEN bool sum_distribution(const T* z, int64_t k,
                                       const InverseTemperature<double>& beta, Distribution& d,
                                       double* stored) {
  d.m = double(largest(z, k));
  if (!(absolute(d.m * beta.c) < Range<double>::max_exponent)) return false;
  const ExponentFrame<double> frame = exponent_frame(d.m, beta);
  d.exponent = frame.exponent, d.rounding = frame.rounding, d.floor = frame.floor;
  const Vec<double> c(beta.c), c_low(beta.c_low), rounding(frame.rounding), floor(frame.floor),
      lowest(-kInfinity<double>);
  LaneSums<double> sum;
  each_lanes(k, [&](int64_t i, int n) {
    const Vec<double> v = wide_lanes(z + i, n);
    const Vec<double> w = unless_equal(v, lowest, weights(v, c, c_low, rounding, floor));
    if (stored) w.put(stored + i);
    accumulate_score<T>(sum, w);
  });
  d.sum = total_score(sum);
  return d.sum < kInfinity<double>;
}

// e^x - 1 - x of |x| < 1/2, to the accuracy of a score of type T: x^2/2! + x^3/3! + ...
template <class T>
LOGITLAB_INLINE Vec<double> expm1_minus_x(const Vec<double>& x) {
  constexpr int degree = kCompensated<T> ? 17 : 12;
  double coefficient = 1;
  double coefficients[degree + 1];
  for (int n = 2; n <= degree; ++n) coefficients[n] = coefficient /= n;
  Vec<double> series(coefficients[degree]);
  for (int n = degree - 1; n >= 2; --n) series = fma(series, x, Vec<double>(coefficients[n]));
  return mul(mul(x, x), series);
}

// b - a; 0 where both are excluded.
inline Vec<double> logit_difference(const Vec<double>& a, const Vec<double>& b) {
  return unless_equal(larger(a, b), Vec<double>(-kInfinity<double>), sub(b, a));
}

// p (e^d - 1 - d) with d = log(q/p), of logits `a` of p. Of an excluded entry it is q.
template <class T>
LOGITLAB_INLINE Vec<double> divergence_term(const Vec<double>& a, const Vec<double>& p,
                                            const Vec<double>& q, const Vec<double>& d) {
  const Vec<double> zero(0.0), lowest(-kInfinity<double>), size = larger(d, sub(zero, d));
  const Vec<double> near = mul(p, expm1_minus_x<T>(d));
  Vec<double> far = sub(sub(q, p), mul(p, d));
  if constexpr (kCompensated<T>) {
    // An error of d that all classes share has no effect if e^d has it too.
    const Vec<double> most(16.0), x = larger(Vec<double>(-16.0), smaller(d, most));
    const Vec<double> e =
        weights_above_floor(x, Vec<double>(kLog2E), Vec<double>(kLog2ELow),
                            Vec<double>(Range<double>::rounding + Range<double>::bias));
    far = if_less(size, most, mul(p, sub(sub(e, Vec<double>(1.0)), d)), far);
  }
  const Vec<double> term = if_less(size, Vec<double>(0.5), near, far);
  return add(unless_equal(a, lowest, term), sub(q, unless_equal(a, lowest, q)));
}

// Where all logits differ by less, in units of T, the logarithm of the ratio of the sums is that of
// a sum of small numbers.
constexpr double kCloseLogits = 0.125;

// NaN where a row is out of range.
template <class T>
LOGITLAB_FLATTEN double row_divergence(const T* z, const T* other, int64_t k,
                                       const InverseTemperature<double>& beta) {
  thread_local Buffer<double> memory;
  double *p_stored = nullptr, *q_stored = nullptr;
  if (k <= kMaxStoredRow) {
    const int64_t lanes = (k + kLanes - 1) / kLanes * kLanes;
    memory.resize(2 * lanes);
    p_stored = memory.data(), q_stored = p_stored + lanes;
  }
  Distribution p, q;
  if (!sum_distribution(z, k, beta, p, p_stored) || !sum_distribution(other, k, beta, q, q_stored))
    return kNaN<double>;
  const Vec<double> c(beta.c), c_low(beta.c_low), p_rounding(p.rounding), p_floor(p.floor),
      q_rounding(q.rounding), q_floor(q.floor), lowest(-kInfinity<double>), zero(0.0), r(beta.r),
      r_low(beta.r_low), p_factor(1 / p.sum), q_factor(1 / q.sum), limit(kCloseLogits);
  // log(sum_q / sum_p) of sums over 2^N.
  const double shift = q.exponent - p.exponent, ratio = q.sum / p.sum;
  const double log_ratio = (ratio < 1 ? -log1p_of(p.sum / q.sum - 1) : log1p_of(ratio - 1)) +
                           (shift * kLn2 + shift * kLn2Low);
  auto weight = [&](const Vec<double>& v, const double* stored, const Vec<double>& rounding,
                    const Vec<double>& floor) {
    if (stored) return Vec<double>(stored);
    return unless_equal(v, lowest, weights(v, c, c_low, rounding, floor));
  };
  auto p_at = [&](int64_t i, const Vec<double>& a) {
    return mul(weight(a, p_stored ? p_stored + i : nullptr, p_rounding, p_floor), p_factor);
  };
  auto q_at = [&](int64_t i, const Vec<double>& b) {
    return mul(weight(b, q_stored ? q_stored + i : nullptr, q_rounding, q_floor), q_factor);
  };
  bool close = true;
  LaneSums<double> mean;
  each_lanes(k, [&](int64_t i, int n) {
    if (!close) return;
    const Vec<double> a = wide_lanes(z + i, n), b = wide_lanes(other + i, n);
    const Vec<double> x = logit_difference(a, b), delta = fma(x, r, mul(x, r_low));
    close = all_less(larger(delta, sub(zero, delta)), limit);
    if (close) accumulate_score<T>(mean, mul(p_at(i, a), add(delta, expm1_minus_x<T>(delta))));
  });
  const Vec<double> minus_log(close ? -log1p_of(total_score(mean)) : -log_ratio);
  LaneSums<double> total;
  each_lanes(k, [&](int64_t i, int n) {
    const Vec<double> a = wide_lanes(z + i, n), b = wide_lanes(other + i, n);
    const Vec<double> d =
        fma(logit_difference(a, b), r, fma(logit_difference(a, b), r_low, minus_log));
    accumulate_score<T>(total, divergence_term<T>(a, p_at(i, a), q_at(i, b), d));
  });
  return total_score(total);
}

// The scores of rows first to last - 1.
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

}  // namespace

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
