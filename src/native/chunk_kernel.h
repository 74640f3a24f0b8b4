// The weights of a chunk of a row, their sums, and the results that follow from them.
#pragma once

#include "vector_math.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Entries of a chunk, which stays in the first-level cache.
constexpr int64_t kChunkSize = 4096;
constexpr int64_t kGroupSize = 4 * kLanes;

// The largest entry; NaN is ignored.
template <class T>
LOGITLAB_FLATTEN T largest(const T* z, int64_t k) {
  const T lowest = -kInfinity<T>;
  T lane[kLanes];
  if (k < kLanes) {
    copy_padded(z, k, lane, kLanes, lowest);
    larger(Vec<T>(lane), Vec<T>(lowest)).put(lane);
  } else {
    Vec<T> m[4] = {Vec<T>(lowest), Vec<T>(lowest), Vec<T>(lowest), Vec<T>(lowest)};
    int64_t i = 0;
    for (; i + kGroupSize <= k; i += kGroupSize)
      for (int j = 0; j < 4; ++j) m[j] = larger(Vec<T>(z + i + j * kLanes), m[j]);
    for (int j = 0; i + kLanes <= k; i += kLanes, ++j) m[j] = larger(Vec<T>(z + i), m[j]);
    m[3] = larger(Vec<T>(z + k - kLanes), m[3]);
    larger(larger(m[0], m[1]), larger(m[2], m[3])).put(lane);
  }
  for (int half = kLanes / 2; half; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] = max(lane[j], lane[j + half]);
  return lane[0];
}

template <class T>
struct ChunkSums {
  T max;
  T exponent;             // N of the largest entry
  double sum, sum_error;  // of the weights 2^(z c - N), with or without the largest entries
  int64_t ties;           // the number of largest entries, where the sum is without them
};

// Whether the rounding errors of the weights count: in double, where the results are no wider than
// the sums.
template <class T>
constexpr bool kCompensated = sizeof(T) == 8;

// The sum of the weights of a chunk, which are written to `e` if StoreWeights; with ExcludeMax, the
// largest entries are counted and left out of the sum.
template <class T, bool StoreWeights, bool ExcludeMax>
LOGITLAB_FLATTEN ChunkSums<T> sum_weights(const T* z, T* e, int64_t k, T m,
                                          const InverseTemperature<T>& beta) {
  const ExponentFrame<T> frame = exponent_frame(m, beta);
  const Vec<T> c(beta.c), c_low(beta.c_low), rounding(frame.rounding), floor(frame.floor), top(m),
      one(T(1));
  LaneSums<T> sums;
  Vec<T> others(T(0));
  auto lane_weights = [&](const T* from, T* to) {
    const Vec<T> v(from);
    Vec<T> error;
    constexpr bool compensated = ExcludeMax && kCompensated<T>;
    const Vec<T> x = weights(v, c, c_low, rounding, floor, compensated ? &error : nullptr);
    if constexpr (StoreWeights) x.put(to);
    if constexpr (!ExcludeMax) return x;
    if constexpr (compensated) sums.accumulate_error(unless_equal(v, top, error));
    others = add(others, unless_equal(v, top, one));
    return unless_equal(v, top, x);
  };
  int64_t i = 0;
  for (; i + kGroupSize <= k; i += kGroupSize) {
    // The next chunk comes from memory while this one is computed.
    for (size_t j = 0; j < kGroupSize * sizeof(T); j += 64)
      prefetch(reinterpret_cast<const char*>(z + i + kChunkSize) + j);
    const Vec<T> a = lane_weights(z + i, e + i), b = lane_weights(z + i + kLanes, e + i + kLanes);
    const Vec<T> x = lane_weights(z + i + 2 * kLanes, e + i + 2 * kLanes);
    const Vec<T> y = lane_weights(z + i + 3 * kLanes, e + i + 3 * kLanes);
    sums.accumulate(add(add(a, b), add(x, y)));
  }
  int64_t entries = i;
  if (i < k) {
    Vec<T> x[4] = {Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0))};
    int j = 0;
    for (; i + kLanes <= k; i += kLanes, ++j, entries += kLanes) x[j] = lane_weights(z + i, e + i);
    if (i < k) {
      T padded[kLanes], padded_e[kLanes];
      copy_padded(z + i, k - i, padded, kLanes, -kInfinity<T>);
      x[j] = lane_weights(padded, padded_e);
      entries += kLanes;
      if (StoreWeights) copy(padded_e, k - i, e + i);
    }
    sums.accumulate(add(add(x[0], x[1]), add(x[2], x[3])));
  }
  double sum[kLanes][1], error[kLanes][1];
  sums.put(sum[0], error[0]);
  reduce_lanes<1>(sum, error);
  if constexpr (ExcludeMax) {
    T count[kLanes];
    others.put(count);
    for (T x : count) entries -= int64_t(x);
  }
  return {m, frame.exponent, sum[0][0] * kUnlift<T>, error[0][0] * kUnlift<T>,
          ExcludeMax ? entries : 0};
}

inline double power_of_two(double n) { return n < -1100 ? 0 : std::ldexp(1.0, int(n)); }

// The sum of the weights of a row.
struct LogSum {
  double others, others_low;  // without one largest entry, over its weight
  double top;                 // the weight of a largest entry over 2^(the largest N)
  // log sum exp((z - m)/T), and its rounding error.
  double log(double& low) const { return log1p_of(others, others_low, low); }
};
// m + t (log + log_low), rounded once but for t log_low.
template <class T>
inline T logsumexp_value(T m, double t, double log, double log_low) {
  const double product = t * log;
  double error = std::fma(t, log, -product) + t * log_low;
  const double sum = two_sum(double(m), product, error);
  return T(sum + error);
}
// Whether excluded entries, whose weights are 2^-drop instead of 0, may change m + t log(1 +
// others).
template <class T>
inline bool floor_is_visible(double others, int64_t k, double t, T m) {
  return others < double(k) * Range<T>::min_visible &&
         t * others > max(absolute(double(m)) * 0x1p-26, 0x1p-151);
}
template <class T>
LogSum log_sum(const ChunkSums<T>* chunks, int64_t count, T m, const InverseTemperature<T>& beta) {
  T exponent = chunks[0].exponent;
  for (int64_t i = 1; i < count; ++i) exponent = max(exponent, chunks[i].exponent);
  // The weight of an entry m_i over 2^N_i is 2^(m_i c - N_i).
  auto weight = [&](const ChunkSums<T>& chunk, double& low) {
    const double c = double(beta.c), c_low = double(beta.c_low), x = double(chunk.max);
    return exp2_reduced(std::fma(x, c, -double(chunk.exponent)) + x * c_low, &low);
  };
  double sum = 0, error = 0, top = 1, top_low = 0;
  int64_t ties = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double unit = power_of_two(double(chunks[i].exponent) - double(exponent));
    if (chunks[i].max == m) {
      ties += chunks[i].ties;
      top = weight(chunks[i], top_low);
    } else if (chunks[i].ties) {
      const double chunk_ties = double(chunks[i].ties);
      double low;
      sum = two_sum(sum, chunk_ties * weight(chunks[i], low) * unit, error);
      error += chunk_ties * low * unit;
    }
    sum = two_sum(sum, chunks[i].sum * unit, error);
    error += chunks[i].sum_error * unit;
  }
  error = fast_two_sum(sum, error);
  const double quotient = sum / top;
  double low = (std::fma(-quotient, top, sum) + (error - quotient * top_low)) / top;
  const double others = two_sum(double(ties - 1), quotient, low);
  return {others, low, top};
}

// The probabilities e f of weights e. Products with subnormal results are slow; there the digits of
// 1 + p / 2^-126, rounded once, are the bits of p.
template <class T>
struct Normalizer {
  Vec<T> factor, factor_low, factor_over_min, min_normal_weight;

  explicit Normalizer(const Vec<T>& f, const Vec<T>& f_low = Vec<T>(T(0)))
      : Normalizer(f, f_low, div(Vec<T>(kSmallestNormal<T>), f)) {}
  // With min_weight, the smallest normal number over f.
  Normalizer(const Vec<T>& f, const Vec<T>& f_low, const Vec<T>& min_weight)
      : factor(f),
        factor_low(f_low),
        factor_over_min(mul(f, Vec<T>(1 / kSmallestNormal<T>))),
        min_normal_weight(min_weight) {}
  bool all_normal(const Vec<T>& e) const { return all_less(min_normal_weight, e); }
  Vec<T> normal(const Vec<T>& e) const {
    return kCompensated<T> ? fma(e, factor, mul(e, factor_low)) : mul(e, factor);
  }
  static T scalar(T e, T f, T f_low) { return kCompensated<T> ? fma(e, f, e * f_low) : e * f; }
  Vec<T> normal_or_subnormal(const Vec<T>& e) const {
    const Vec<T> small = minus_bits_of_one(fma(e, factor_over_min, Vec<T>(T(1))));
    return if_less(e, min_normal_weight, small, normal(larger(e, min_normal_weight)));
  }
  Vec<T> operator()(const Vec<T>& e) const {
    return all_normal(e) ? normal(e) : normal_or_subnormal(e);
  }
};

// p = e r 2^(N_i - N - lift), with shift = N_i - N.
template <class T>
LOGITLAB_FLATTEN void write_probabilities(const T* e, T* out, int64_t k, double r, double r_low,
                                          double shift, bool stream) {
  const bool one_factor = shift > -50;
  const double unit = power_of_two((one_factor ? shift : 0) - Range<T>::lift), factor = r * unit;
  int64_t i = 0;
  if (one_factor) {
    const Normalizer<T> normalize{Vec<T>(T(factor)), Vec<T>(T(r_low * unit))};
    auto scalar = [&] { out[i] = normalize.scalar(e[i], T(factor), T(r_low * unit)); };
    if (stream) {
      for (; i < k && reinterpret_cast<uintptr_t>(out + i) % 64; ++i) scalar();
      for (; i + kLanes <= k; i += kLanes) normalize(Vec<T>(e + i)).put_streaming(out + i);
    }
    for (; i + kLanes <= k; i += kLanes) normalize(Vec<T>(e + i)).put(out + i);
    for (; i < k; ++i) scalar();
  } else {
    const T first = T(factor), second = T(power_of_two(shift));
    for (; i < k; ++i) out[i] = e[i] * first * second;
  }
}

// The least z - m whose quotient by T does not overflow.
template <class T>
T min_difference(double t) {
  const double most = kLargest<T>;
  return -T(t < 1 ? most * t : most);
}

// (z - m)/T - log sum, -inf where z is or where the result overflows.
template <class T>
struct LogProbability {
  Vec<T> m, r, r_low, min_difference, minus_log_sum;
  // Where the quotient does not overflow.
  Vec<T> near(const Vec<T>& z) const {
    const Vec<T> difference = sub(z, m);
    return fma(difference, r, fma(difference, r_low, minus_log_sum));
  }
  Vec<T> operator()(const Vec<T>& z) const {
    const Vec<T> difference = sub(z, m), inside = larger(difference, min_difference);
    const Vec<T> quotient = fma(inside, r, fma(inside, r_low, minus_log_sum));
    // `inside` differs from the difference only where the result is -inf.
    return fma(sub(difference, inside), Vec<T>(kLargest<T>), quotient);
  }
};

template <class T>
LOGITLAB_FLATTEN void write_log_probabilities(const T* z, T* out, int64_t k,
                                              const LogProbability<T>& log_p, bool stream) {
  int64_t i = 0;
  auto scalar = [&] {
    T lane[kLanes] = {z[i]};
    log_p(Vec<T>(lane)).put(lane);
    out[i] = lane[0];
  };
  if (stream) {
    for (; i < k && reinterpret_cast<uintptr_t>(out + i) % 64; ++i) scalar();
    for (; i + kLanes <= k; i += kLanes) log_p(Vec<T>(z + i)).put_streaming(out + i);
  }
  for (; i + kLanes <= k; i += kLanes) log_p(Vec<T>(z + i)).put(out + i);
  for (; i < k; ++i) scalar();
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
