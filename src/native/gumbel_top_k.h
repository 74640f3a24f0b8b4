// Sampling without replacement: the n largest of z/T plus Gumbel noise.
#pragma once

#include "philox.h"
#include "sorting.h"
#include "threads.h"
#include "truncated_row.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The (z - m)/t that noise is added to, -inf where the probability is 0.
inline double log_weight(double z, double m, double t) {
  if (z == -kInfinity<double>) return z;
  if (z == m) return 0;
  if (t == 0 || m == kInfinity<double>) return -kInfinity<double>;
  if (t == kInfinity<double>) return 0;
  return z - m == -kInfinity<double> ? (z / 2 - m / 2) / (t / 2) : (z - m) / t;
}

// Whether no log-weight plus its noise reaches `least`. An exponential variate -log(1 - u) is at
// least u, so the noise is at most -log u, which is at most -log 2 times the exponent of u. The
// margin covers rounding errors.
inline bool all_below(const double* log_weights, const double* u, double least) {
  const Vec<double> big(0x1p52), bias(0x1p52 + 1023), step(-kLn2), bound(least - 1e-9);
  for (int l = 0; l < kCounters; l += kLanes) {
    const Vec<double> exponent = sub(add_bits(exponent_bits(Vec<double>(u + l)), big), bias);
    if (!all_less(fma(exponent, step, Vec<double>(log_weights + l)), bound)) return false;
  }
  return true;
}

// -log E of the exponential variates E = -log(1 - u).
inline void gumbel_noise(double* u, double* noise) {
  for (int l = 0; l < kCounters; ++l) u[l] = min(u[l], 1 - 0x1p-53);
  for (int l = 0; l < kCounters; l += kLanes) {
    const Vec<double> v(u + l), one(1.0);
    const Vec<double> e = log1p_lanes(div(v, sub(one, v)));
    // log E = log(1 + (2^65 E - 1)) - 65 log 2, whose argument is not negative.
    sub(Vec<double>(65 * kLn2), log1p_lanes(fms(e, Vec<double>(0x1p65), one))).put(noise + l);
  }
}

// Writes the `capacity` best of entries [first, last) as a heap, and returns its size; m is the
// largest of all entries. The noise of an entry depends on its class.
template <class T>
LOGITLAB_FLATTEN int64_t best_scores(const TruncatedRow<T>& row, Key key, uint64_t row_key,
                                     double t, double m, int64_t first, int64_t last,
                                     ScoredIndex* heap, int64_t capacity) {
  uint64_t counter_low[kCounters], counter_high[kCounters] = {};
  double u[kCounters], log_weights[kCounters], noise[kCounters];
  fill(counter_low, kCounters, row_key);
  fill(log_weights, kCounters, -kInfinity<double>);
  int64_t heap_size = 0;
  for (int64_t i = first; i < last; i += kCounters) {
    const int64_t size = min<int64_t>(kCounters, last - i);
    for (int64_t l = 0; l < size; ++l) {
      counter_high[l] = uint64_t(row.class_of(i + l));
      log_weights[l] = log_weight(double(row.z()[i + l]), m, t);
    }
    uniforms(key, counter_low, counter_high, u);
    if (heap_size == capacity && all_below(log_weights, u, heap[0].score)) continue;
    gumbel_noise(u, noise);
    for (int64_t l = 0; l < size; ++l) {
      if (!(log_weights[l] > -kInfinity<double>)) continue;
      const ScoredIndex candidate{noise[l] + log_weights[l], i + l};
      if (heap_size < capacity) {
        heap[heap_size++] = candidate;
        push_to_heap(heap, heap_size);
      } else if (comes_before(candidate, heap[0])) {
        replace_worst(heap, heap_size, candidate);
      }
    }
  }
  return heap_size;
}

// Writes the classes of at most n entries, the best first.
template <class T>
void sample_without_replacement(const TruncatedRow<T>& row, Key key, uint64_t row_key, double t,
                                int64_t n, int threads, int64_t* found) {
  const T m = largest_or_nan(row.z(), row.size());
  if (is_nan(m)) return;
  // Each range of entries has its own heap.
  const int64_t step = threads > 1 ? max<int64_t>(1, row.size() / (4 * threads)) : row.size();
  const int64_t ranges = (row.size() + step - 1) / step, capacity = min(n, step);
  Buffer<ScoredIndex> heaps;
  Buffer<int64_t> sizes;
  heaps.resize(ranges * capacity), sizes.resize(ranges);
  parallel_ranges(row.size(), step, threads, [&](int64_t first, int64_t last) {
    const int64_t range = first / step;
    sizes[range] = best_scores(row, key, row_key, t, double(m), first, last,
                               heaps.data() + range * capacity, capacity);
  });
  int64_t count = 0;
  for (int64_t range = 0; range < ranges; ++range)
    for (int64_t i = 0; i < sizes[range]; ++i) heaps[count++] = heaps[range * capacity + i];
  sort_by_score(heaps.data(), count);
  for (int64_t j = 0; j < min(n, count); ++j) found[j] = row.class_of(heaps[j].index);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
