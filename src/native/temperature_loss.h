// What temperature scaling minimises: the log-loss of each row at beta = 1/T and its first and
// second derivative by beta, in one pass over memory.
//
// With m the largest entry and p = softmax(beta z): loss = log sum exp(beta (z - m)) - beta (z_y -
// m), slope = beta (E_p[z - m] - (z_y - m)), curvature = beta^2 Var_p[z].
#pragma once

#include "batch.h"
#include "chunk_kernel.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Sums of w, w x and w x^2 over a row, where w are the weights and x = (z - m) log2(e) beta.
template <class T>
struct Moments {
  Vec<T> c, c_low, rounding, floor, top, min_x;
  Vec<double> sum_w{0.0}, sum_wx{0.0}, sum_wx2{0.0};

  Moments(T m, const InverseTemperature<T>& beta, const ExponentFrame<T>& frame)
      : c(beta.c),
        c_low(beta.c_low),
        rounding(frame.rounding),
        floor(frame.floor),
        top(m),
        min_x(T(-256)) {}

  // Adds `Blocks` times sixteen entries, whose sums are computed in T.
  template <int Blocks>
  void accumulate(const T* z) {
    Vec<T> w_sum(T(0)), wx_sum(T(0)), wx2_sum(T(0));
    for (int j = 0; j < Blocks; ++j) {
      const Vec<T> v(z + j * kLanes), w = weights(v, c, c_low, rounding, floor);
      // Weights below 2^-256 do not count; the bound replaces -inf.
      const Vec<T> x = larger(min_x, mul(sub(v, top), c)), wx = mul(w, x);
      w_sum = add(w_sum, w);
      wx_sum = add(wx_sum, wx);
      wx2_sum = fma(wx, x, wx2_sum);
    }
    sum_w = add(sum_w, widen(w_sum));
    sum_wx = add(sum_wx, widen(wx_sum));
    sum_wx2 = add(sum_wx2, widen(wx2_sum));
  }
};

// Writes loss, slope, curvature and z_y - m; the loss is NaN where the row is out of range, or
// where another thread of Python has changed the label to one that is.
template <class T>
void write_moments(const T* z, int64_t k, int64_t y, const InverseTemperature<T>& beta,
                   double* out) {
  const T m = largest(z, k);
  out[0] = kNaN<double>;
  out[3] = uint64_t(y) < uint64_t(k) ? double(z[y]) - double(m) : kNaN<double>;
  if (!(absolute(m * beta.c) < Range<T>::max_exponent) || is_nan(out[3])) return;
  const ExponentFrame<T> frame = exponent_frame(m, beta);
  Moments<T> sums(m, beta, frame);
  int64_t i = 0;
  for (; i + kGroupSize <= k; i += kGroupSize) sums.template accumulate<4>(z + i);
  for (; i + kLanes <= k; i += kLanes) sums.template accumulate<1>(z + i);
  if (i < k) {
    T padded[kLanes];
    copy_padded(z + i, k - i, padded, kLanes, -kInfinity<T>);
    sums.template accumulate<1>(padded);
  }
  const double sum = lane_sum(sums.sum_w), mean = lane_sum(sums.sum_wx) / sum;
  const double mean_square = lane_sum(sums.sum_wx2) / sum;
  // The weight of the largest entry is 2^(m c - N); `sum` is multiplied by 2^lift.
  const double x = double(m), t = beta.t, c = double(beta.c);
  const double top = exp2_reduced(std::fma(x, c, -double(frame.exponent)) + x * double(beta.c_low));
  out[0] = log1p_of(max(sum * kUnlift<T> / top - 1, 0.0)) - out[3] / t;
  out[1] = mean / (c * t) - out[3] / t;
  out[2] = max(mean_square - mean * mean, 0.0) / (c * t * (c * t));
}

template <class T>
void compute_moments(const T* z, const int64_t* y, int64_t k, double t, double* out, int64_t first,
                     int64_t last) {
  const InverseTemperature<T> beta = inverse_temperature<T>(t);
  for (int64_t r = first; r < last; ++r) {
    if (beta.in_range)
      write_moments(z + r * k, k, *static_cast<const volatile int64_t*>(y + r), beta, out + 4 * r);
    else
      out[4 * r] = kNaN<double>;
  }
}

void moments_of_rows(Kind kind, const void* z, const int64_t* y, int64_t k, double t, double* out,
                     int64_t first, int64_t last) {
  if (kind == kFloat32)
    compute_moments(static_cast<const float*>(z), y, k, t, out, first, last);
  else
    compute_moments(static_cast<const double*>(z), y, k, t, out, first, last);
}

}  // namespace

extern const MomentsFunction moments;
const MomentsFunction moments = moments_of_rows;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
