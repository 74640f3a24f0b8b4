// Exponentials, logarithms and sums on lanes.
//
// With c = log2(e)/T = c_high + c_low and z c = n + f, n an integer, |f| <= 1/2, every weight is
// exp(z/T) = 2^n 2^f. Subtracting integers from n is exact, so z - max is never rounded and z/T
// never formed. Weights are held relative to 2^N, N the n of the largest entry, and times
// 2^Range::lift, so that none of them is subnormal. Sums run in sixteen lanes of double (with a
// second one for what is lost, for double), the lanes in one tree.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "scalar_math.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
struct Range;
template <>
struct Range<float> {
  static constexpr double lift = 64, drop = 186, bias = 127;  // 2^-186 is far below any result
  static constexpr float magic = 0x1.8p23f, reach = 0x1p21f;
  static constexpr double least = 0x1p-60, most = 0x1p60, faint = 0x1p-160;
};
template <>
struct Range<double> {
  static constexpr double lift = 512, drop = 1526, bias = 1023;
  static constexpr double magic = 0x1.8p52, reach = 0x1p40;
  static constexpr double least = 0x1p-900, most = 0x1p900, faint = 0;
};

// 1/T and log2(e)/T, each in two parts of type T.
template <class T>
struct Scale {
  T c, c_low, r, r_low;
  double t;
  bool usable;
};

inline void split(double high, double low, float& a, float& b) {
  a = float(high);
  b = float((high - double(a)) + low);
}
inline void split(double high, double low, double& a, double& b) { a = high, b = low; }

template <class T>
Scale<T> scale_of(double t) {
  Scale<T> s{};
  s.t = t;
  s.usable = t > 1 / Range<T>::most && t < 1 / Range<T>::least;
  if (!s.usable) return s;
  const double c = kLog2E / t, r = 1 / t;
  split(c, (std::fma(-c, t, kLog2E) + kLog2ELow) / t, s.c, s.c_low);
  split(r, std::fma(-r, t, 1.0) / t, s.r, s.r_low);
  return s;
}

// 2^f of Exp2, on lanes, and what its rounding leaves.
template <class T>
inline Vec<T> exp2_lanes(const Vec<T>& f, Vec<T>* low = nullptr) {
  using P = Exp2<T>;
  Vec<T> y(P::c[P::degree - 1]);
  for (int i = P::degree - 2; i >= 0; --i) y = fma(y, f, Vec<T>(P::c[i]));
  const Vec<T> one(T(1)), e = fma(y, f, one);
  if (low) *low = fma(y, f, sub(one, e));
  return e;
}

inline double of_bits(uint64_t bits) { return bit_cast<double>(bits); }

// log(1 + x + x_low) of x >= 0, as log1p_of, on lanes.
inline Vec<double> log1p_lanes(const Vec<double>& x, const Vec<double>& x_low, Vec<double>& low) {
  // 1 + x = u + lost; u = 2^k m with m = 1 + f in [sqrt 1/2, sqrt 2).
  const Vec<double> one(1.0), u = add(one, x), part = sub(u, one);
  const Vec<double> lost = add(add(sub(one, sub(u, part)), sub(x, part)), x_low);
  constexpr uint64_t root = 0x3fe6a09e667f3bcd, first = 0x3ff0000000000000;
  const Vec<double> moved = add_bits(u, Vec<double>(of_bits(first - root)));
  const Vec<double> m = add_bits(and_bits(moved, Vec<double>(of_bits((uint64_t(1) << 52) - 1))),
                                 Vec<double>(of_bits(root)));
  // The exponent's bits as the low digits of 2^52 are a double.
  const Vec<double> big(0x1p52);
  const Vec<double> k = sub(sub(add_bits(exponent_bits(moved), big), big), Vec<double>(1023.0));
  const Vec<double> down = pow2_of_bits(sub(Vec<double>(0x1p52 + 1023), k));
  const Vec<double> f = sub(m, one), s = div(f, add(Vec<double>(2.0), f)), s2 = mul(s, s);
  Vec<double> tail(0.0);
  for (int i = 25; i >= 3; i -= 2) tail = fma(tail, s2, Vec<double>(2.0 / i));
  // The slope 1/(1 + f) is 1 - 2 s + 2 s^2 - ...
  const Vec<double> two(2.0), slope = fma(mul(two, s), sub(s, one), one);
  const Vec<double> rest =
      fma(s, fms(tail, s2, f), fma(k, Vec<double>(kLn2Low), mul(mul(lost, down), slope)));
  const Vec<double> ln2(kLn2), near = add(f, rest), whole = mul(k, ln2), log = add(whole, near);
  const Vec<double> back = sub(log, whole);
  low = add(add(sub(rest, sub(near, f)), fms(k, ln2, whole)),
            add(sub(whole, sub(log, back)), sub(near, back)));
  return log;
}

inline Vec<double> log1p_lanes(const Vec<double>& x) {
  Vec<double> low;
  return log1p_lanes(x, Vec<double>(0.0), low);
}

// The exponent N of the chunk (or lane) whose largest entry is m, and what follows from it.
template <class T>
struct Frame {
  T n, magic, floor;
};
template <class T>
inline Frame<T> frame_of(T m, const Scale<T>& s) {
  Frame<T> f;
  const T magic = Range<T>::magic;
  f.n = std::fma(m, s.c, magic) - magic;
  f.magic = magic + T(Range<T>::lift + Range<T>::bias) - f.n;
  f.floor = T((double(f.n) - Range<T>::drop) * (kLn2 * s.t));
  return f;
}

// The weights 2^(z c - N + lift), of 0 < NaN: a NaN comes out as NaN; and what they lose in
// rounding.
template <class T>
inline Vec<T> weights(const Vec<T>& z, const Vec<T>& c, const Vec<T>& c_low, const Vec<T>& magic,
                      const Vec<T>& floor, Vec<T>* low = nullptr) {
  const Vec<T> x = larger(floor, z);
  const Vec<T> shifted = fma(x, c, magic);
  const Vec<T> n = sub(shifted, magic);
  const Vec<T> f = fma(x, c_low, fms(x, c, n));
  const Vec<T> scale = pow2_of_bits(shifted), e = exp2_lanes(f, low);
  if (low) *low = mul(*low, scale);
  return mul(e, scale);
}

// Sixteen running sums.
template <class T>
struct Sums;
template <>
struct Sums<float> {
  Vec<double> s{0.0};
  void add_to(const Vec<float>& x) { s = add(s, widen(x)); }
  void put(double* p, double* low) const {
    s.put(p);
    std::fill(low, low + kLanes, 0.0);
  }
};
template <>
struct Sums<double> {
  Vec<double> s{0.0}, lost{0.0};
  void add_to(const Vec<double>& x) {
    const Vec<double> next = add(s, x), part = sub(next, s);
    lost = add(lost, add(sub(s, sub(next, part)), sub(x, part)));
    s = next;
  }
  void add_lost(const Vec<double>& x) { lost = add(lost, x); }
  void put(double* p, double* low) const {
    s.put(p);
    lost.put(low);
  }
};

// a + b, and to `lost` what that loses.
inline double two_sum(double a, double b, double& lost) {
  const double sum = a + b, part = sum - a;
  lost += (a - (sum - part)) + (b - part);
  return sum;
}

// a += b for a small b; what that loses.
inline double fast_two_sum(double& a, double b) {
  const double sum = a + b, lost = b - (sum - a);
  a = sum;
  return lost;
}

// 1/(sum + low) in two parts.
struct Reciprocal {
  double high, low;
  Reciprocal(double sum, double low_) : high(1 / sum) {
    low = (std::fma(-high, sum, 1.0) - high * low_) * high;
  }
};

// The sixteen sums of each of Width rows, and what was lost on the way, into the first of each.
template <int Width>
void tree(double (*sum)[Width], double (*lost)[Width]) {
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i)
      for (int r = 0; r < Width; ++r) {
        lost[i][r] += lost[i + half][r];
        sum[i][r] = two_sum(sum[i][r], sum[i + half][r], lost[i][r]);
      }
  for (int r = 0; r < Width; ++r) lost[0][r] = fast_two_sum(sum[0][r], lost[0][r]);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
