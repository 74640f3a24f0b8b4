#include "exact_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "scalar_math.h"
#include "threads.h"

namespace logitlab {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct DoubleDouble {
  double high, low;
};

// (z - m)/t for finite z <= m and finite t > 0, and its rounding error.
DoubleDouble quotient(double z, double m, double t) {
  double half = 1;
  if (z - m == -kInf) half = 0.5, z *= half, m *= half;
  double d = z - m;
  const double m_again = z - d;
  double d_low = (z - (d + m_again)) + (m_again - m);
  // A power of two keeps the remainder below in range.
  const double unit = t > 0x1p512 ? 0x1p-600 : t < 0x1p-512 ? 0x1p600 : 1;
  d *= unit, d_low *= unit, t *= unit;
  t *= half;
  const double q = d / t;
  if (!(q > -2000)) return {q, 0};
  return {q, (std::fma(-q, t, d) + d_low) / t};
}

// Answers signals once in so many entries.
void check_signals_at(int64_t i) {
  if (i % kTaskEntries == kTaskEntries - 1) check_signals();
}

template <class T>
void fill(Op op, T* out, int64_t k, T entry, T logsumexp) {
  if (op == Op::logsumexp)
    *out = logsumexp;
  else
    std::fill(out, out + k, entry);
}

// A uniform distribution over the `count` entries that `included` selects.
template <class T, class Included>
void uniform(Op op, const T* z, T* out, int64_t k, T logsumexp, int64_t count, Included included) {
  if (op == Op::logsumexp) {
    *out = logsumexp;
    return;
  }
  const T inside = T(op == Op::softmax ? 1.0 / double(count) : -log1p_of(double(count - 1)));
  const T outside = op == Op::softmax ? T(0) : T(-kInf);
  for (int64_t i = 0; i < k; ++i) out[i] = included(z[i]) ? inside : outside;
}

template <class T>
void compute_row(Op op, const T* z, T* out, int64_t k, double t) {
  constexpr T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  T m = -inf;
  for (int64_t i = 0; i < k; ++i) {
    if (std::isnan(z[i])) return fill(op, out, k, nan, nan);
    m = std::max(m, z[i]);
  }
  if (m == -inf) return fill(op, out, k, nan, -inf);
  if (m == inf || t == 0) {
    const int64_t count = std::count(z, z + k, m);
    return uniform(op, z, out, k, m, count, [m](T x) { return x == m; });
  }
  if (t == kInf) {
    const int64_t count = k - std::count(z, z + k, -inf);
    return uniform(op, z, out, k, count > 1 ? inf : m, count, [](T x) { return x != -inf; });
  }
  // The sum of all but the maxima, with the rounding errors of its additions.
  double sum = 0, error = 0;
  int64_t ties = 0;
  for (int64_t i = 0; i < k; ++i) {
    check_signals_at(i);
    if (z[i] == m) {
      ++ties;
    } else if (z[i] != -inf) {
      const DoubleDouble q = quotient(z[i], m, t);
      const double e = exp_of(q.high, q.low), next = sum + e, part = next - sum;
      error += (sum - (next - part)) + (e - part);
      sum = next;
    }
  }
  const double rest = double(ties - 1) + (sum + error), log_sum = log1p_of(rest);
  if (op == Op::logsumexp) {
    *out = T(double(m) + t * log_sum);
    return;
  }
  for (int64_t i = 0; i < k; ++i) {
    check_signals_at(i);
    if (z[i] == -inf) {
      out[i] = op == Op::softmax ? T(0) : -inf;
      continue;
    }
    const DoubleDouble q = quotient(z[i], m, t);
    out[i] = T(op == Op::softmax ? exp_of(q.high, q.low) / (1 + rest) : q.high + (q.low - log_sum));
  }
}

template <class T>
void weights(const T* z, int64_t k, double m, double t, double* e) {
  for (int64_t i = 0; i < k; ++i) {
    e[i] = 0;
    if (z[i] == -kInf) continue;
    const DoubleDouble q = quotient(z[i], m, t);
    e[i] = exp_of(q.high, q.low);
  }
}

}  // namespace

void exact_row(Op op, const float* z, float* out, int64_t k, double t) {
  compute_row(op, z, out, k, t);
}
void exact_row(Op op, const double* z, double* out, int64_t k, double t) {
  compute_row(op, z, out, k, t);
}

void exact_weights(const float* z, int64_t k, float m, double t, double* e) {
  weights(z, k, m, t, e);
}
void exact_weights(const double* z, int64_t k, double m, double t, double* e) {
  weights(z, k, m, t, e);
}

}  // namespace logitlab
