// The products of products.h with sixteen lines at once, one in each lane.
#pragma once

#include "row_kernel.h"
#include "transpose.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// From so many probabilities of a line being one, its entry is taken apart from the others.
constexpr double kSaturated = 0.75;

// Whether a slope is finite in T; where it is not, `stretch` puts right what was made with slope 1.
template <class T>
bool in_range(double slope) {
  return std::fabs(T(slope)) < std::numeric_limits<T>::infinity();
}
// A mean of at most this size cannot make a finite number overflow.
template <class T>
constexpr T kModest = std::numeric_limits<T>::max() * std::numeric_limits<T>::epsilon() / 8;
template <class T>
void stretch(T* x, int64_t n, int64_t step, double slope) {
  for (int64_t i = 0; i < n; ++i)
    if (x[i * step] != 0) x[i * step] = T(double(x[i * step]) * slope);
}

// x where y is finite or NaN, else 0.
template <class T>
inline Vec<T> unless_infinite(const Vec<T>& y, const Vec<T>& x) {
  return unless_equal(larger(y, sub(Vec<T>(T(0)), y)), Vec<T>(std::numeric_limits<T>::infinity()),
                      x);
}

// Entry j of line r of p, v and out is at j * step + r, that of z at j * z_step + r * z_line. z may
// be null: then nothing is excluded but by p = 0.
template <class T>
class ProductLanes {
 public:
  ProductLanes(const T* p, const T* v, const T* z, int64_t z_step, int64_t z_line, T* out,
               int64_t step, int64_t k, const double* slope)
      : p_(p), v_(v), z_(z), out_(out), z_step_(z_step), z_line_(z_line), step_(step), k_(k) {
    std::copy(slope, slope + kLanes, slope_);
  }

  // As softmax(), of lines of four entries or more, with v as it is; false, with nothing written,
  // where one of the lines may need more care: close to one, v all but constant or huge, NaN, +inf.
  LOGITLAB_FLATTEN bool softmax_of_plain() {
    const Vec<T> zero(T(0)), one(T(1));
    Vec<T> most(T(0));
    Sums<T> sums;
    auto term = [&](int64_t j) {
      const Vec<T> p = at(p_, j);
      most = larger(p, most);
      return mul(p, at(v_, j));
    };
    int64_t j = 0;
    for (; j + 4 <= k_; j += 4)
      sums.add_to(add(add(term(j), term(j + 1)), add(term(j + 2), term(j + 3))));
    for (; j < k_; ++j) sums.add_to(term(j));
    double sum[kLanes];
    T mean_[kLanes];
    total(sums, sum);
    std::copy(sum, sum + kLanes, mean_);
    const Vec<T> mean(mean_), size = larger(mean, sub(zero, mean));
    Vec<T> between(T(0)), away(T(0));
    for (j = 0; j < 4; ++j) {
      const Vec<T> p = at(p_, j), d = mul(sub(at(v_, j), mean), Vec<T>(T(16)));
      between = larger(if_less(zero, p, if_less(p, most, one, zero), zero), between);
      away = larger(unless_equal(p, zero, larger(d, sub(zero, d))), away);
    }
    if (!all_less(most, Vec<T>(T(kSaturated))) || !all_less(zero, between) ||
        !all_less(size, away) || !all_less(size, Vec<T>(kModest<T>)))
      return false;
    const Vec<T> slope = slopes();
    for (j = 0; j < k_; ++j) mul(mul(at(p_, j), slope), sub(at(v_, j), mean)).put(out_ + j * step_);
    stretch_lines();
    return true;
  }

  // slope p (v - sum p v), both taken from the v of the largest p.
  LOGITLAB_FLATTEN void softmax() {
    const Vec<T> zero(T(0)), low(-kInf);
    Vec<T> most(T(0)), least(-kInf), v_top(T(0));
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      v_top = if_less(most, p, at(v_, j), v_top);
      most = larger(p, most);
      least = larger(if_less(zero, p, sub(zero, p), low), least);
    }
    Sums<T> sums;
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      sums.add_to(unless_equal(p, zero, mul(p, sub(at(v_, j), v_top))));
    }
    double mean[kLanes];
    total(sums, mean);
    // Only a line whose probabilities are equal, 0 or NaN can have logits of +inf.
    uint32_t suspects = 0;
    if (z_) {
      T highest[kLanes], lowest[kLanes];
      most.put(highest), least.put(lowest);
      for (int r = 0; r < kLanes; ++r)
        if (highest[r] == -lowest[r] || mean[r] != mean[r]) suspects |= 1u << r, stop_beyond(r);
    }
    const Vec<T> slope = slopes();
    const Vec<double> origin = widen(v_top), from(mean);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      Vec<T> away;
      round_to(sub(sub(widen(at(v_, j)), origin), from), away);
      unless_equal(p, zero, mul(mul(p, slope), away)).put(out_ + j * step_);
    }
    stretch_lines();
    for (int r = 0; suspects >> r; ++r)
      for (int64_t j = 0; (suspects >> r & 1) && j < k_; ++j)
        if (std::fabs(z_[j * z_step_ + r * z_line_]) == kInf) out_[j * step_ + r] = 0;
  }

  // slope (v - p sum v); of a probability close to 1, slope (v others - p rest), others the sum of
  // the other probabilities, rest that of their v. Here z is laid out as p.
  LOGITLAB_FLATTEN void log_softmax() {
    const Vec<T> one(T(1));
    Vec<T> most(T(0)), v_top(T(0)), highest(-kInf);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      v_top = if_less(most, p, at(v_, j), v_top);
      most = larger(p, most);
      if (z_) highest = larger(at(z_, j), highest);
    }
    Sums<T> p_sum, v_sum, ties;
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j), v = unless_beyond(j, at(v_, j));
      p_sum.add_to(unless_equal(p, most, unless_beyond(j, p)));
      v_sum.add_to(unless_equal(p, most, v));
      ties.add_to(unless_equal(unless_equal(p, most, one), one, v));
    }
    double others[kLanes], rest[kLanes], all[kLanes];
    total(p_sum, others), total(v_sum, rest), total(ties, all);
    T high[kLanes], top[kLanes], mark[kLanes];
    most.put(high), v_top.put(top), highest.put(mark);
    for (int r = 0; r < kLanes; ++r) {
      if (mark[r] == kInf && slope_[r] > 0) slope_[r] = 0;
      all[r] += rest[r];
      mark[r] = double(high[r]) > kSaturated ? high[r] : T(-1);
      top[r] = T(double(top[r]) * others[r] - double(high[r]) * rest[r]);
    }
    const Vec<T> slope = slopes(), marked(mark), at_top(top);
    const Vec<double> whole(all);
    for (int64_t j = 0; j < k_; ++j) {
      const Vec<T> p = at(p_, j);
      Vec<T> x;
      round_to(sub(widen(at(v_, j)), mul(widen(p), whole)), x);
      const Vec<T> elsewhere = unless_equal(p, marked, one);
      x = add(unless_equal(p, marked, x), unless_equal(elsewhere, one, at_top));
      unless_beyond(j, mul(slope, x)).put(out_ + j * step_);
    }
    stretch_lines();
  }

 private:
  static constexpr T kInf = std::numeric_limits<T>::infinity();

  Vec<T> at(const T* x, int64_t j) const { return Vec<T>(x + j * step_); }

  // x, or 0 where the logit is infinite.
  Vec<T> unless_beyond(int64_t j, const Vec<T>& x) const {
    return z_ ? unless_infinite(at(z_, j), x) : x;
  }

  static void total(const Sums<T>& sums, double* sum) {
    double lost[kLanes];
    sums.put(sum, lost);
    for (int r = 0; r < kLanes; ++r) sum[r] += lost[r];
  }

  // A line with +inf is beyond every finite change, unless T < 0 excludes that.
  void stop_beyond(int r) {
    for (int64_t j = 0; j < k_; ++j)
      if (z_[j * z_step_ + r * z_line_] == kInf && slope_[r] > 0) slope_[r] = 0;
  }

  Vec<T> slopes() const {
    T slope[kLanes];
    for (int r = 0; r < kLanes; ++r) slope[r] = in_range<T>(slope_[r]) ? T(slope_[r]) : T(1);
    return Vec<T>(slope);
  }
  void stretch_lines() const {
    for (int r = 0; r < kLanes; ++r)
      if (!in_range<T>(slope_[r])) stretch(out_ + r, k_, step_, slope_[r]);
  }

  const T *p_, *v_, *z_;
  T* out_;
  const int64_t z_step_, z_line_, step_, k_;
  double slope_[kLanes];
};

// Lines of few entries, one after another in memory: `size` of them, at most sixteen.
template <class T>
void few(const T* p, const T* v, const T* z, T* out, int64_t k, int size, bool log,
         const double* slope) {
  constexpr int64_t room = kLanes * (kLanes + 3);
  T lanes[3][room], whole[kLanes * kLanes], result[room];
  const T* from[3] = {p, v, log ? z : nullptr};
  double slopes[kLanes] = {};
  std::copy(slope, slope + size, slopes);
  for (int i = 0; i < 3; ++i) {
    if (!from[i]) continue;
    const T* x = from[i];
    if (size < kLanes) {
      std::fill(std::copy(x, x + size * k, whole), whole + kLanes * k, T(0));
      x = whole;
    }
    turn_in(x, k, lanes[i]);
  }
  if (log)
    ProductLanes<T>(lanes[0], lanes[1], z ? lanes[2] : nullptr, kLanes, 1, result, kLanes, k,
                    slopes)
        .log_softmax();
  else
    ProductLanes<T>(lanes[0], lanes[1], z, 1, k, result, kLanes, k, slopes).softmax();
  turn_out(result, k, size < kLanes ? whole : out);
  if (size < kLanes) std::copy(whole, whole + size * k, out);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
