// Exponentials, logarithms and sums on lanes.
//
// With c = log2(e)/T = c_high + c_low and z c = n + f, n an integer, |f| <= 1/2, every weight is
// exp(z/T) = 2^n 2^f. Subtracting integers from n is exact, so z - max is never rounded and z/T
// never computed. Weights are relative to 2^N, where N is the n of the largest entry, and
// multiplied by 2^Range::lift, so that none of them is subnormal. Sums have sixteen lanes of double
// (for double, sixteen more for the rounding errors), which are added pairwise at the end.
#pragma once

#include <cmath>
#include <cstdint>

#include "algorithms.h"
#include "scalar_math.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Where the vector kernels are accurate. A weight is at least 2^-drop; an n is added to `rounding`,
// whose last digit is 1, to round it; |max c| is below `max_exponent` and 1/T between `min_beta`
// and `max_beta`. Weights above 2^narrow are above 2^-drop and have normal probabilities. From a
// sum of min_visible per class on, weights of 2^-drop do not change it.
template <class T>
struct Range;
template <>
struct Range<float> {
  static constexpr double lift = 64, drop = 186, bias = 127, narrow = -80;
  static constexpr float rounding = 0x1.8p23f, max_exponent = 0x1p21f;
  static constexpr double min_beta = 0x1p-60, max_beta = 0x1p60, min_visible = 0x1p-160;
};
template <>
struct Range<double> {
  static constexpr double lift = 512, drop = 1526, bias = 1023, narrow = -1000;
  static constexpr double rounding = 0x1.8p52, max_exponent = 0x1p40;
  static constexpr double min_beta = 0x1p-900, max_beta = 0x1p900, min_visible = 0;
};
// 2^-lift.
template <class T>
constexpr double kUnlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;

// c = log2(e)/T and r = 1/T, each as the sum of two numbers of type T.
template <class T>
struct InverseTemperature {
  T c, c_low, r, r_low;
  double t;
  bool in_range;
};

inline void split(double high, double low, float& a, float& b) {
  a = float(high);
  b = float((high - double(a)) + low);
}
inline void split(double high, double low, double& a, double& b) { a = high, b = low; }

template <class T>
InverseTemperature<T> inverse_temperature(double t) {
  InverseTemperature<T> x{};
  x.t = t;
  x.in_range = t > 1 / Range<T>::max_beta && t < 1 / Range<T>::min_beta;
  if (!x.in_range) return x;
  const double c = kLog2E / t, r = 1 / t;
  split(c, (std::fma(-c, t, kLog2E) + kLog2ELow) / t, x.c, x.c_low);
  split(r, std::fma(-r, t, 1.0) / t, x.r, x.r_low);
  return x;
}

// 2^f of |f| <= 1/2, on lanes, and its rounding error.
template <class T>
inline Vec<T> exp2_lanes(const Vec<T>& f, Vec<T>* error = nullptr) {
  using P = Exp2<T>;
  Vec<T> y(P::c[P::degree - 1]);
  for (int i = P::degree - 2; i >= 0; --i) y = fma(y, f, Vec<T>(P::c[i]));
  const Vec<T> one(T(1)), e = fma(y, f, one);
  if (error) *error = fma(y, f, sub(one, e));
  return e;
}

inline double double_of_bits(uint64_t bits) { return bit_cast<double>(bits); }

// log(1 + x + x_low) of x >= 0, as log1p_of, on lanes.
inline Vec<double> log1p_lanes(const Vec<double>& x, const Vec<double>& x_low, Vec<double>& low) {
  // 1 + x = u + error; u = 2^k m with m = 1 + f in [sqrt 1/2, sqrt 2).
  const Vec<double> one(1.0), u = add(one, x), part = sub(u, one);
  const Vec<double> error = add(add(sub(one, sub(u, part)), sub(x, part)), x_low);
  constexpr uint64_t root_half = 0x3fe6a09e667f3bcd, unit = 0x3ff0000000000000;
  const Vec<double> moved = add_bits(u, Vec<double>(double_of_bits(unit - root_half)));
  const Vec<double> m =
      add_bits(and_bits(moved, Vec<double>(double_of_bits((uint64_t(1) << 52) - 1))),
               Vec<double>(double_of_bits(root_half)));
  // The bits of 2^52 with the exponent as its low digits are a double.
  const Vec<double> big(0x1p52);
  const Vec<double> k = sub(sub(add_bits(exponent_bits(moved), big), big), Vec<double>(1023.0));
  const Vec<double> inverse_power = pow2_of_bits(sub(Vec<double>(0x1p52 + 1023), k));
  const Vec<double> f = sub(m, one), s = div(f, add(Vec<double>(2.0), f)), s2 = mul(s, s);
  Vec<double> tail(0.0);
  for (int i = 25; i >= 3; i -= 2) tail = fma(tail, s2, Vec<double>(2.0 / i));
  // The slope 1/(1 + f) is 1 - 2 s + 2 s^2 - ...
  const Vec<double> two(2.0), slope = fma(mul(two, s), sub(s, one), one);
  const Vec<double> rest =
      fma(s, fms(tail, s2, f), fma(k, Vec<double>(kLn2Low), mul(mul(error, inverse_power), slope)));
  const Vec<double> ln2(kLn2), log_m = add(f, rest), log_power = mul(k, ln2);
  const Vec<double> log = add(log_power, log_m), back = sub(log, log_power);
  low = add(add(sub(rest, sub(log_m, f)), fms(k, ln2, log_power)),
            add(sub(log_power, sub(log, back)), sub(log_m, back)));
  return log;
}

inline Vec<double> log1p_lanes(const Vec<double>& x) {
  Vec<double> low;
  return log1p_lanes(x, Vec<double>(0.0), low);
}

// The exponent N of the chunk (or lane) whose largest entry is m; the constant whose addition to z
// c leaves the bits of n - N + lift as an exponent; and the z whose weight is 2^-drop.
template <class T>
struct ExponentFrame {
  T exponent, rounding, floor;
};
template <class T>
inline ExponentFrame<T> exponent_frame(T m, const InverseTemperature<T>& beta) {
  ExponentFrame<T> frame;
  const T rounding = Range<T>::rounding;
  frame.exponent = fma(m, beta.c, rounding) - rounding;
  frame.rounding = rounding + T(Range<T>::lift + Range<T>::bias) - frame.exponent;
  frame.floor = T((double(frame.exponent) - Range<T>::drop) * (kLn2 * beta.t));
  return frame;
}

// The weights 2^(z c - N + lift) of z that are not below the floor, NaN of NaN, and their rounding
// errors.
template <class T>
inline Vec<T> weights_above_floor(const Vec<T>& z, const Vec<T>& c, const Vec<T>& c_low,
                                  const Vec<T>& rounding, Vec<T>* error = nullptr) {
  const Vec<T> shifted = fma(z, c, rounding);
  const Vec<T> n = sub(shifted, rounding);
  const Vec<T> f = fma(z, c_low, fms(z, c, n));
  const Vec<T> scale = pow2_of_bits(shifted), e = exp2_lanes(f, error);
  if (error) *error = mul(*error, scale);
  return mul(e, scale);
}
// The same, of any z.
template <class T>
inline Vec<T> weights(const Vec<T>& z, const Vec<T>& c, const Vec<T>& c_low, const Vec<T>& rounding,
                      const Vec<T>& floor, Vec<T>* error = nullptr) {
  return weights_above_floor(larger(floor, z), c, c_low, rounding, error);
}

// Sixteen running sums, in double.
template <class T>
struct LaneSums;
template <>
struct LaneSums<float> {
  Vec<double> sum{0.0};
  void accumulate(const Vec<float>& x) { sum = add(sum, widen(x)); }
  Vec<double> rounding_error() const { return Vec<double>(0.0); }
  void put(double* sums, double* errors) const {
    sum.put(sums);
    fill(errors, kLanes, 0.0);
  }
};
template <>
struct LaneSums<double> {
  Vec<double> sum{0.0}, error{0.0};
  void accumulate(const Vec<double>& x) {
    const Vec<double> next = add(sum, x), part = sub(next, sum);
    error = add(error, add(sub(sum, sub(next, part)), sub(x, part)));
    sum = next;
  }
  void accumulate_error(const Vec<double>& x) { error = add(error, x); }
  Vec<double> rounding_error() const { return error; }
  void put(double* sums, double* errors) const {
    sum.put(sums);
    error.put(errors);
  }
};

// a + b; adds the rounding error to `error`.
inline double two_sum(double a, double b, double& error) {
  const double sum = a + b, part = sum - a;
  error += (a - (sum - part)) + (b - part);
  return sum;
}

// a += b for |b| <= |a|; returns the rounding error.
inline double fast_two_sum(double& a, double b) {
  const double sum = a + b, error = b - (sum - a);
  a = sum;
  return error;
}

// The sum of the lanes, added pairwise.
inline double lane_sum(const Vec<double>& v) {
  double lane[kLanes];
  v.put(lane);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// 1/(sum + sum_low) as the sum of two numbers.
struct Reciprocal {
  double high, low;
  Reciprocal(double sum, double sum_low) : high(1 / sum) {
    low = (std::fma(-high, sum, 1.0) - high * sum_low) * high;
  }
};

// Adds the sixteen lanes of each of `Width` sums pairwise, into lane 0.
template <int Width>
void reduce_lanes(double (*sum)[Width], double (*error)[Width]) {
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i)
      for (int r = 0; r < Width; ++r) {
        error[i][r] += error[i + half][r];
        sum[i][r] = two_sum(sum[i][r], sum[i + half][r], error[i][r]);
      }
  for (int r = 0; r < Width; ++r) error[0][r] = fast_two_sum(sum[0][r], error[0][r]);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
