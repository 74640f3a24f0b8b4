// Scalar exp2 and log1p on fused multiply-add alone: the same bits wherever they are compiled.
#pragma once

#include <cmath>
#include <limits>

namespace logitlab {
namespace {  // compiled separately for every instruction set

constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLog2ELow = 0x1.777d0ffda0d24p-56;
constexpr double kLn2 = 0x1.62e42fefa39efp-1;
constexpr double kLn2Low = 0x1.abc9e3b39803fp-56;

// 2^x = 1 + x (c1 + c2 x + ...) on [-1/2, 1/2]: the polynomials of least relative error with
// constant term 1. It is 2^-28.5 for float and 2^-55.6 for double.
template <class T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr int degree = 6;
  static constexpr float c[degree] = {0x1.62e432p-1f, 0x1.ebfbe2p-3f,  0x1.c6ae72p-5f,
                                      0x1.3b270ep-7f, 0x1.5f7278p-10f, 0x1.470b5cp-13f};
};
template <>
struct Exp2<double> {
  static constexpr int degree = 11;
  static constexpr double c[degree] = {
      0x1.62e42fefa39f3p-1,  0x1.ebfbdff82c598p-3,  0x1.c6b08d7048f31p-5,  0x1.3b2ab6fba1e1bp-7,
      0x1.5d87fe7bbbe32p-10, 0x1.4309130961259p-13, 0x1.ffcbee3b02852p-17, 0x1.62bfd49eacbfcp-20,
      0x1.b54167aae8c04p-24, 0x1.e605f9b672d54p-28, 0x1.c0637f86a43f7p-32};
};

// 2^x of |x| <= 1/2, and its rounding error.
inline double exp2_reduced(double x, double* low = nullptr) {
  using P = Exp2<double>;
  double y = P::c[P::degree - 1];
  for (int i = P::degree - 2; i >= 0; --i) y = std::fma(y, x, P::c[i]);
  const double e = std::fma(y, x, 1.0);
  if (low) *low = std::fma(y, x, 1 - e);
  return e;
}

// To the nearest integer, |x| < 2^51.
inline double nearest(double x) {
  constexpr double rounding = 0x1.8p52;
  volatile double shifted = x + rounding;
  return shifted - rounding;
}

// exp(q + q_low) for q <= 0.
inline double exp_of(double q, double q_low) {
  if (q < -800) return 0;
  const double high = q * kLog2E;
  const double low = std::fma(q, kLog2E, -high) + (q * kLog2ELow + q_low * kLog2E);
  const double n = nearest(high);
  return std::ldexp(exp2_reduced((high - n) + low), int(n));
}

// log(1 + x + x_low) for x >= 0, by log((1 + s)/(1 - s)) = 2 s + 2 s^3/3 + ..., and its rounding
// error.
inline double log1p_of(double x, double x_low, double& low) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  low = 0;
  if (!(x < infinity)) return x;
  double k = 0, f = x, error = x_low / (1 + x);
  if (x > 0.41) {  // 1 + x = 2^k (1 + f) with f in [1/sqrt 2 - 1, sqrt 2 - 1]
    const double u = 1 + x;
    error = ((x < 1 ? x - (u - 1) : 1 - (u - x)) + x_low) / u;
    int exponent;
    double m = std::frexp(u, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
      m *= 2;
      --exponent;
    }
    k = exponent;
    f = m - 1;
  }
  const double s = f / (2 + f), s2 = s * s;
  double tail = 0;
  for (int i = 25; i >= 3; i -= 2) tail = std::fma(tail, s2, 2.0 / i);
  // 2 s = f - s f; s f is accurate enough, as f is exact.
  const double rest = s * std::fma(tail, s2, -f) + std::fma(k, kLn2Low, error);
  const double part = f + rest, whole = k * kLn2, log = whole + part, back = log - whole;
  low = (rest - (part - f)) + std::fma(k, kLn2, -whole) + ((whole - (log - back)) + (part - back));
  return log;
}
inline double log1p_of(double x) {
  double low;
  return log1p_of(x, 0, low);
}

}  // namespace
}  // namespace logitlab
