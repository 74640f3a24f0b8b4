// What a temperature is fitted on: of each row the log-loss at beta = 1/T and its first and second
// derivative in beta, in one pass over memory.
//
// With m the largest entry and p = softmax(beta z): loss = log sum exp(beta (z - m)) - beta (z_y -
// m), slope = beta (E_p[z - m] - (z_y - m)), curvature = beta^2 Var_p[z]: numbers without a unit.
#pragma once

#include "row_kernel.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Sixteen sums of float, widened every kGroup entries, or of double.
template <class T>
struct Total;
template <>
struct Total<float> {
  Vec<double> s{0.0};
  void add_to(const Vec<float>& x) { s = add(s, widen(x)); }
};
template <>
struct Total<double> {
  Vec<double> s{0.0};
  void add_to(const Vec<double>& x) { s = add(s, x); }
};

inline double sum_of(const Vec<double>& v) {
  double lane[kLanes];
  v.put(lane);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// The weights of a row, times 1, x and x^2 for x = (z - m) log2(e) beta.
template <class T>
struct Moments {
  Vec<T> c, c_low, magic, floor, top, least;
  Total<T> s0, s1, s2;

  Moments(T m, const Scale<T>& s, const Frame<T>& f)
      : c(s.c), c_low(s.c_low), magic(f.magic), floor(f.floor), top(m), least(T(-256)) {}

  // Group blocks of sixteen entries, of which the sums are taken in T.
  template <int Group>
  void add_to(const T* z) {
    Vec<T> a0(T(0)), a1(T(0)), a2(T(0));
    for (int j = 0; j < Group; ++j) {
      const Vec<T> v(z + j * kLanes), w = weights(v, c, c_low, magic, floor);
      // Below 2^-256 an entry is nothing, and -inf among them harmless.
      const Vec<T> x = larger(least, mul(sub(v, top), c)), wx = mul(w, x);
      a0 = add(a0, w);
      a1 = add(a1, wx);
      a2 = fma(wx, x, a2);
    }
    s0.add_to(a0), s1.add_to(a1), s2.add_to(a2);
  }
};

// loss, slope, curvature and z_y - m; the first is NaN where the row is out of range.
template <class T>
void moments_row(const T* z, int64_t k, int64_t y, const Scale<T>& s, double* out) {
  const T m = largest(z, k);
  out[0] = std::numeric_limits<double>::quiet_NaN();
  out[3] = double(z[y]) - double(m);
  if (!(std::fabs(m * s.c) < Range<T>::reach)) return;
  const Frame<T> frame = frame_of(m, s);
  Moments<T> sums(m, s, frame);
  int64_t i = 0;
  for (; i + kGroup <= k; i += kGroup) sums.template add_to<4>(z + i);
  for (; i + kLanes <= k; i += kLanes) sums.template add_to<1>(z + i);
  if (i < k) {
    T padded[kLanes];
    std::fill(std::copy(z + i, z + k, padded), padded + kLanes,
              -std::numeric_limits<T>::infinity());
    sums.template add_to<1>(padded);
  }
  const double sum = sum_of(sums.s0.s), mean = sum_of(sums.s1.s) / sum;
  const double square = sum_of(sums.s2.s) / sum;
  // The weight of the largest entry is 2^(m c - N), in the same unit as the sum.
  const double x = double(m);
  const double top = exp2_reduced(std::fma(x, double(s.c), -double(frame.n)) + x * double(s.c_low));
  const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
  const double c = double(s.c);
  out[0] = log1p_of(std::max(sum * unlift / top - 1, 0.0)) - out[3] / s.t;
  out[1] = mean / (c * s.t) - out[3] / s.t;
  out[2] = std::max(square - mean * mean, 0.0) / (c * s.t * (c * s.t));
}

template <class T>
void moments_of(const T* z, const int64_t* y, int64_t k, double t, double* out, int64_t first,
                int64_t last) {
  const Scale<T> s = scale_of<T>(t);
  for (int64_t r = first; r < last; ++r) {
    if (s.usable)
      moments_row(z + r * k, k, y[r], s, out + 4 * r);
    else
      out[4 * r] = std::numeric_limits<double>::quiet_NaN();
  }
}

void moments_rows(Kind kind, const void* z, const int64_t* y, int64_t k, double t, double* out,
                  int64_t first, int64_t last) {
  if (kind == kFloat32)
    moments_of(static_cast<const float*>(z), y, k, t, out, first, last);
  else
    moments_of(static_cast<const double*>(z), y, k, t, out, first, last);
}

}  // namespace

extern const MomentsRun moments;
const MomentsRun moments = moments_rows;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
