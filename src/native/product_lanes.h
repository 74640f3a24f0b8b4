// The products of product_row.h for sixteen rows at once, one in each lane.
#pragma once

#include "chunk_kernel.h"
#include "product_scaled.h"
#include "transpose.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Rows with a probability above this are computed from the sum of the other probabilities.
constexpr double kDominant = 0.75;

// Whether a slope is finite in T. Where it is not, results are computed with slope 1 and multiplied
// in double afterwards.
template <class T>
bool slope_in_range(double slope) {
  return absolute(T(slope)) < kInfinity<T>;
}
// A mean or sum below this cannot make its difference from a finite v overflow.
template <class T>
constexpr T kMaxMean = kLargest<T> * kEpsilon<T> / 8;
template <class T>
void multiply_slope(T* x, int64_t n, int64_t step, double slope) {
  for (int64_t i = 0; i < n; ++i)
    if (x[i * step] != 0) x[i * step] = T(double(x[i * step]) * slope);
}

// x where y is finite or NaN, else 0.
template <class T>
inline Vec<T> unless_infinite(const Vec<T>& y, const Vec<T>& x) {
  return unless_equal(larger(y, sub(Vec<T>(T(0)), y)), Vec<T>(kInfinity<T>), x);
}

// Entry j of row r of p, v and out is at j * step + r, that of z at j * z_step + r * z_row. z may
// be null; then entries are excluded by p = 0 only.
template <class T>
class ProductLanes {
 public:
  ProductLanes(const T* p, const T* v, const T* z, int64_t z_step, int64_t z_row, T* out,
               int64_t step, int64_t k, const double* slope)
      : p_(p), v_(v), z_(z), out_(out), z_step_(z_step), z_row_(z_row), step_(step), k_(k) {
    copy(slope, kLanes, slope_);
  }

  // slope p (v - sum p v) for rows of at least four entries. False, with nothing written, where
  // this may be inaccurate: a probability close to 1, v nearly constant or very large, NaN, +inf.
  LOGITLAB_FLATTEN bool softmax_directly() {
    const Vec<T> zero(T(0)), one(T(1));
    Vec<T> most(T(0));
    LaneSums<T> sums;
    auto term = [&](int64_t j) {
      const Vec<T> p = at(p_, j);
      most = larger(p, most);
      return mul(p, at(v_, j));
    };
    int64_t j = 0;
    for (; j + 4 <= k_; j += 4)
      sums.accumulate(add(add(term(j), term(j + 1)), add(term(j + 2), term(j + 3))));
    for (; j < k_; ++j) sums.accumulate(term(j));
    double sum[kLanes];
    T mean_lanes[kLanes];
    total(sums, sum);
    for (int r = 0; r < kLanes; ++r) mean_lanes[r] = T(sum[r]);
    const Vec<T> mean(mean_lanes), size = larger(mean, sub(zero, mean));
    Vec<T> between(T(0)), distance(T(0));
    for (j = 0; j < 4; ++j) {
      const Vec<T> p = at(p_, j), d = mul(sub(at(v_, j), mean), Vec<T>(T(16)));
      between = larger(if_less(zero, p, if_less(p, most, one, zero), zero), between);
      distance = larger(unless_equal(p, zero, larger(d, sub(zero, d))), distance);
    }
    if (!all_less(most, Vec<T>(T(kDominant))) || !all_less(zero, between) ||
        !all_less(size, distance) || !all_less(size, Vec<T>(kMaxMean<T>)))
      return false;
    const Vec<T> slope = slopes();
    for (j = 0; j < k_; ++j) mul(mul(at(p_, j), slope), sub(at(v_, j), mean)).put(out_ + j * step_);
    multiply_slopes();
    return true;
  }

  // slope p (v - sum p v), where v_top, the v of the largest p, is subtracted from v first.
  LOGITLAB_FLATTEN void softmax() {
    const Vec<T> zero(T(0)), low(-kInf);
    Vec<T> most(T(0)), minus_least(-kInf), v_top(T(0));
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      v_top = if_less(most, p, at(v_, j), v_top);
      most = larger(p, most);
      minus_least = larger(if_less(zero, p, sub(zero, p), low), minus_least);
    }
    LaneSums<T> sums;
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      sums.accumulate(unless_equal(p, zero, mul(p, sub(at(v_, j), v_top))));
    }
    double mean[kLanes];
    total(sums, mean);
    // Only a row whose probabilities are equal, 0 or NaN can have logits of +inf.
    uint32_t maybe_infinite = 0;
    if (z_) {
      T highest[kLanes], minus_lowest[kLanes];
      most.put(highest), minus_least.put(minus_lowest);
      for (int r = 0; r < kLanes; ++r)
        if (highest[r] == -minus_lowest[r] || is_nan(mean[r]))
          maybe_infinite |= 1u << r, clear_slope_if_infinite(r);
    }
    const Vec<T> slope = slopes();
    const Vec<double> origin = widen(v_top), shifted_mean(mean);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      Vec<T> difference;
      round_to(sub(sub(widen(at(v_, j)), origin), shifted_mean), difference);
      unless_equal(p, zero, mul(mul(p, slope), difference)).put(out_ + j * step_);
    }
    multiply_slopes();
    replace_overflow(mean, false);
    for (int r = 0; maybe_infinite >> r; ++r)
      for (int64_t j = 0; (maybe_infinite >> r & 1) && j < k_; ++j)
        if (absolute(z_[j * z_step_ + r * z_row_]) == kInf) out_[j * step_ + r] = 0;
  }

  // slope (v - p sum v); at a probability close to 1, slope (v others - p rest), where `others` is
  // the sum of the other probabilities and `rest` that of their v. Here z has the layout of p.
  LOGITLAB_FLATTEN void log_softmax() {
    const Vec<T> one(T(1));
    Vec<T> most(T(0)), v_top(T(0)), highest(-kInf);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      v_top = if_less(most, p, at(v_, j), v_top);
      most = larger(p, most);
      if (z_) highest = larger(at(z_, j), highest);
    }
    LaneSums<T> p_sum, v_sum, ties;
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j), v = unless_logit_infinite(j, at(v_, j));
      p_sum.accumulate(unless_equal(p, most, unless_logit_infinite(j, p)));
      v_sum.accumulate(unless_equal(p, most, v));
      ties.accumulate(unless_equal(unless_equal(p, most, one), one, v));
    }
    double others[kLanes], rest[kLanes], v_total[kLanes];
    total(p_sum, others), total(v_sum, rest), total(ties, v_total);
    T p_max[kLanes], top[kLanes], z_max[kLanes], dominant[kLanes];
    most.put(p_max), v_top.put(top), highest.put(z_max);
    for (int r = 0; r < kLanes; ++r) {
      if (z_max[r] == kInf && slope_[r] > 0) slope_[r] = 0;
      v_total[r] += rest[r];
      dominant[r] = double(p_max[r]) > kDominant ? p_max[r] : T(-1);
      top[r] = T(double(top[r]) * others[r] - double(p_max[r]) * rest[r]);
    }
    const Vec<T> slope = slopes(), dominant_p(dominant), at_dominant(top);
    const Vec<double> v_sums(v_total);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      Vec<T> x;
      round_to(sub(widen(at(v_, j)), mul(widen(p), v_sums)), x);
      const Vec<T> elsewhere = unless_equal(p, dominant_p, one);
      x = add(unless_equal(p, dominant_p, x), unless_equal(elsewhere, one, at_dominant));
      unless_logit_infinite(j, mul(slope, x)).put(out_ + j * step_);
    }
    multiply_slopes();
    for (int r = 0; r < kLanes; ++r) rest[r] = absolute(rest[r]) + absolute(v_total[r]);
    replace_overflow(rest, true);
  }

 private:
  static constexpr T kInf = kInfinity<T>;

  Vec<T> at(const T* x, int64_t j) const { return Vec<T>(x + j * step_); }

  // x, or 0 where the logit is infinite.
  Vec<T> unless_logit_infinite(int64_t j, const Vec<T>& x) const {
    return z_ ? unless_infinite(at(z_, j), x) : x;
  }

  static void total(const LaneSums<T>& sums, double* sum) {
    double error[kLanes];
    sums.put(sum, error);
    for (int r = 0; r < kLanes; ++r) sum[r] += error[r];
  }

  // Computes rows again whose means or sums are so large that a difference may overflow.
  void replace_overflow(const double* sum, bool log) const {
    for (int r = 0; r < kLanes; ++r) {
      if (absolute(sum[r]) < double(kMaxMean<T>)) continue;
      const T* z = z_ ? z_ + r * z_row_ : nullptr;
      ScaledProduct<T> row(p_ + r, v_ + r, z, step_, z_step_, k_, log);
      if (!row.sum_finite()) continue;
      for (int64_t j = 0; j < k_; ++j) out_[j * step_ + r] = row.entry(j, slope_[r]);
    }
  }

  // Finite changes of a row with +inf change nothing, unless T < 0 excludes +inf.
  void clear_slope_if_infinite(int r) {
    for (int64_t j = 0; j < k_; ++j)
      if (z_[j * z_step_ + r * z_row_] == kInf && slope_[r] > 0) slope_[r] = 0;
  }

  Vec<T> slopes() const {
    T slope[kLanes];
    for (int r = 0; r < kLanes; ++r) slope[r] = slope_in_range<T>(slope_[r]) ? T(slope_[r]) : T(1);
    return Vec<T>(slope);
  }
  void multiply_slopes() const {
    for (int r = 0; r < kLanes; ++r)
      if (!slope_in_range<T>(slope_[r])) multiply_slope(out_ + r, k_, step_, slope_[r]);
  }

  const T *p_, *v_, *z_;
  T* out_;
  const int64_t z_step_, z_row_, step_, k_;
  double slope_[kLanes];
};

// At most sixteen contiguous rows of few entries.
template <class T>
void product_of_small_rows(const T* p, const T* v, const T* z, T* out, int64_t k, int size,
                           bool log, const double* slope) {
  constexpr int64_t entries = kLanes * (kLanes + 3);
  T lanes[3][entries], padded[kLanes * kLanes], result[entries];
  const T* from[3] = {p, v, log ? z : nullptr};
  double slopes[kLanes] = {};
  copy(slope, size, slopes);
  for (int i = 0; i < 3; ++i) {
    if (!from[i]) continue;
    const T* x = from[i];
    if (size < kLanes) {
      copy_padded(x, size * k, padded, kLanes * k, T(0));
      x = padded;
    }
    transpose_in(x, k, lanes[i]);
  }
  if (log)
    ProductLanes<T>(lanes[0], lanes[1], z ? lanes[2] : nullptr, kLanes, 1, result, kLanes, k,
                    slopes)
        .log_softmax();
  else
    ProductLanes<T>(lanes[0], lanes[1], z, 1, k, result, kLanes, k, slopes).softmax();
  transpose_out(result, k, size < kLanes ? padded : out);
  if (size < kLanes) copy(padded, size * k, out);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
