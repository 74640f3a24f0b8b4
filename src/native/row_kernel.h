// One row of contiguous float or double at a finite temperature above 0.
//
// A row is cut into chunks that stay in the first-level cache; the weights of a chunk are relative
// to its own largest entry. The sums of the chunks are added in their order.
#pragma once

#include "batch.h"
#include "chunk_kernel.h"
#include "targets.h"
#include "threads.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int64_t kTaskChunks = kTaskEntries / kChunkSize;

inline int64_t chunk_count(int64_t k) { return (k + kChunkSize - 1) / kChunkSize; }

// `e` is memory for k weights (it may be `out`; log_softmax and logsumexp do not use it; null where
// only the sums are wanted).
template <class T>
struct RowKernel {
  Op op;
  const T* z;
  T* out;
  int64_t k;
  const InverseTemperature<T>& beta;
  T* e;
  ChunkSums<T>* chunks;  // memory for one per chunk
  bool stream;
  double gradient_scale = 1;
  const Targets<T>* targets = nullptr;  // of losses of more than a label

  int64_t count() const { return chunk_count(k); }
  int64_t size(int64_t i) const { return min(kChunkSize, k - i * kChunkSize); }

  T chunk_max(int64_t i) const { return largest(z + i * kChunkSize, size(i)); }

  // The weights and sums of chunk i, whose largest entry is m. Where they are out of range it
  // returns false, and the sum is infinite.
  bool sum_chunk(int64_t i, T m) const {
    if (!sum_chunk_weights(i, m)) {
      chunks[i].sum = kInfinity<double>;
      return false;
    }
    if (targets) targets->sum_chunk(i, z, i * kChunkSize, size(i), m);
    return true;
  }

  bool sum_chunk_weights(int64_t i, T m) const {
    const T* from = z + i * kChunkSize;
    T* to = e ? e + i * kChunkSize : nullptr;
    if (m == -kInfinity<T> && logitlab::LOGITLAB_ISA::count(from, size(i), m) == size(i)) {
      chunks[i] = {m, -4 * Range<T>::max_exponent, 0, 0, 0};
      if (e && (op == Op::softmax || op == Op::loss_and_gradient)) fill(to, size(i), T(0));
      return true;
    }
    // A largest entry of -inf is out of range, as there is a NaN in the chunk.
    if (!(absolute(m * beta.c) < Range<T>::max_exponent)) return false;
    chunks[i] = op == Op::softmax && !e
                    ? sum_weights<T, false, false>(from, nullptr, size(i), m, beta)
                : op == Op::softmax ? sum_weights<T, true, false>(from, to, size(i), m, beta)
                : op == Op::loss_and_gradient
                    ? sum_weights<T, true, true>(from, to, size(i), m, beta)
                    : sum_weights<T, false, true>(from, nullptr, size(i), m, beta);
    return chunks[i].sum < kInfinity<double>;
  }

  struct Totals {
    T max, exponent;
    double factor, factor_low;    // of the weights
    double log_sum, log_sum_low;  // log sum exp((z - m)/T)
    double others;                // as in LogSum
    TargetTotals target;
  };
  // Combines the chunks; false where all entries are excluded, or where the sum is too small to be
  // accurate.
  bool combine_chunks(Totals& total) const {
    total.max = chunks[0].max, total.exponent = chunks[0].exponent;
    for (int64_t i = 1; i < count(); ++i) {
      total.max = max(total.max, chunks[i].max);
      total.exponent = max(total.exponent, chunks[i].exponent);
    }
    if (total.max == -kInfinity<T>) return false;
    if (op != Op::softmax) {
      const LogSum sum = logitlab::LOGITLAB_ISA::log_sum(chunks, count(), total.max, beta);
      total.others = sum.others;
      if (op == Op::logsumexp && floor_is_visible(total.others, k, beta.t, total.max)) return false;
      total.log_sum = sum.log(total.log_sum_low);
      if (targets && !combine_target_sums(total)) return false;
      total.factor =
          gradient_scale * (targets ? total.target.total : 1) / (sum.top * (1 + sum.others));
      total.factor_low = 0;
      return true;
    }
    double sum = 0, error = 0;
    for (int64_t i = 0; i < count(); ++i) {
      const double unit = power_of_two(double(chunks[i].exponent) - double(total.exponent));
      sum = two_sum(sum, chunks[i].sum * unit, error);
      error += chunks[i].sum_error * unit;
    }
    error = fast_two_sum(sum, error);
    const Reciprocal factor(sum, error);
    total.factor = factor.high, total.factor_low = factor.low;
    return true;
  }

  // False where the loss or its gradient is out of range.
  bool combine_target_sums(Totals& total) const {
    TargetSums all;
    for (int64_t i = 0; i < count(); ++i) {
      const TargetSums& chunk = targets->chunks[i];
      const double below_max = double(total.max) - double(chunks[i].max);
      all.target += chunk.target;
      all.target_below_max += chunks[i].max == total.max ? chunk.target_below_max : chunk.target;
      all.distance += chunk.distance + (chunk.target > 0 ? chunk.target * below_max : 0);
      all.classes += chunk.classes;
      all.class_distance +=
          chunk.class_distance + (chunk.classes > 0 ? chunk.classes * below_max : 0);
    }
    total.target =
        targets->distribution
            ? target_totals(all, targets->smoothing)
            : label_totals(all, targets->smoothing, double(z[targets->label]), double(total.max));
    return gradient_in_range(total.target, gradient_scale, beta.t);
  }

  // The results of chunk i; of logsumexp, that of the row.
  void write_chunk(int64_t i, const Totals& total) const {
    const T* from = z + i * kChunkSize;
    T* to = out + i * kChunkSize;
    const double shift = double(chunks[i].exponent) - double(total.exponent);
    if (targets) {
      T* gradient = e + i * kChunkSize;
      write_probabilities(gradient, gradient, size(i), total.factor, total.factor_low, shift,
                          false);
      const TargetStep<T> step{
          Vec<T>(T(-gradient_scale * total.target.a)), Vec<T>(T(-gradient_scale * total.target.b)),
          Vec<T>(TargetStep<T>::max_if_dominant(total.max, total.others)),
          Vec<T>(TargetStep<T>::dominant_gradient(total.target, total.others, gradient_scale)),
          Vec<T>(-kInfinity<T>)};
      const T* y = targets->distribution ? targets->distribution + i * kChunkSize : nullptr;
      subtract_targets(step, gradient, from, y, to, size(i), stream);
    } else if (op == Op::softmax || op == Op::loss_and_gradient) {
      write_probabilities(e + i * kChunkSize, to, size(i), total.factor, total.factor_low, shift,
                          stream);
    } else if (op == Op::log_softmax) {
      write_log_probabilities(
          from, to, size(i),
          LogProbability<T>{Vec<T>(total.max), Vec<T>(beta.r), Vec<T>(beta.r_low),
                            Vec<T>(min_difference<T>(beta.t)),
                            Vec<T>(T(-(total.log_sum + total.log_sum_low)))},
          stream);
    } else {
      *out = logsumexp_value(total.max, beta.t, total.log_sum, total.log_sum_low);
    }
  }

  // The whole row on `threads` threads. Where this returns false, the row is out of range and `out`
  // has undefined contents: z, which must then not be `e`, goes to exact_row.
  bool run(int threads, Totals& total) const {
    if (!beta.in_range) return false;
    return threads > 1 || count() > kTaskChunks ? run_parallel(threads, total) : run_serial(total);
  }

  bool run_serial(Totals& total) const {
    for (int64_t i = 0; i < count(); ++i)
      if (!sum_chunk(i, chunk_max(i))) return false;
    if (!combine_chunks(total)) return false;
    if (op == Op::loss) return true;
    for (int64_t i = 0; i < (op == Op::logsumexp ? 1 : count()); ++i) write_chunk(i, total);
    return true;
  }

  bool run_parallel(int threads, Totals& total) const {
    const int64_t step = even_step(count(), threads, kTaskChunks);
    parallel_ranges(count(), step, threads, [this](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) sum_chunk(i, chunk_max(i));
    });
    if (!all_chunks_in_range() || !combine_chunks(total)) return false;
    if (op == Op::loss) return true;
    if (op == Op::logsumexp) {
      write_chunk(0, total);
      return true;
    }
    parallel_ranges(count(), step, threads, [this, &total](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) write_chunk(i, total);
    });
    return true;
  }

  bool all_chunks_in_range() const {
    for (int64_t i = 0; i < count(); ++i)
      if (!(chunks[i].sum < kInfinity<double>)) return false;
    return true;
  }
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
