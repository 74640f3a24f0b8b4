// Inverse-CDF sampling from a row of more than one chunk.
//
// One pass computes the sums of the chunks. A uniform number selects a chunk, whose weights are
// then recomputed; the rest of the number selects the entry. So memory for one chunk is enough.
#pragma once

#include "cumulative.h"
#include "row_kernel.h"
#include "sorting.h"
#include "truncate.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
class LongRow {
 public:
  // z and beta must outlive the calls of sample.
  void set(const T* z, int64_t k, const InverseTemperature<T>& beta, int threads) {
    z_ = z, k_ = k, beta_ = &beta;
    chunks_.resize(chunk_count(k));
    before_.resize(chunk_count(k) + 1);
    before_[0] = 0;
    dominant_ = kNaN<T>;
    stored_ = false;
    if (beta.t == 0)
      count_ties();
    else if (!sum_chunks(threads))
      store_softmax();
  }

  // n samples; overwrites the uniform numbers.
  void sample(double* uniforms, int64_t n, int64_t* found) {
    const int64_t count = chunks_.size();
    const double total = before_[count];
    if (!(total > 0)) return fill<int64_t>(found, n, -1);
    // In the order of the chunks, so that the weights of each are computed once.
    draws_.resize(n);
    for (int64_t j = 0; j < n; ++j) {
      const double target = uniforms[j] * total;
      int64_t chunk = upper_bound(before_.data() + 1, count, target);
      if (chunk == count) chunk = lower_bound(before_.data(), count + 1, total) - 1;
      draws_[j] = {chunk, j};
      uniforms[j] = (target - before_[chunk]) / (before_[chunk + 1] - before_[chunk]);
    }
    if (n > 1) sort_by_chunk(draws_.data(), n);
    int64_t current = -1;
    for (int64_t i = 0; i < n; ++i) {
      const auto [chunk, j] = draws_[i];
      if (chunk != current) sum_within_chunk(current = chunk);
      double target = uniforms[j] * sums_.total();
      sums_.find(&target, 1, found + j);
      found[j] += chunk * kChunkSize;
    }
  }

  int64_t capacity() const { return softmax_.capacity(); }
  void release() {
    softmax_.release();
    chunks_.release();
    draws_.release();
    before_.release();
  }

 private:
  int64_t size(int64_t chunk) const { return min(kChunkSize, k_ - chunk * kChunkSize); }

  // False where the row is out of range.
  bool sum_chunks(int threads) {
    if (!beta_->in_range) return false;
    const RowKernel<T> kernel{Op::softmax, z_, nullptr, k_, *beta_, nullptr, chunks_.data(), false};
    const int64_t step = even_step(chunks_.size(), threads, kTaskChunks);
    parallel_ranges(chunks_.size(), step, threads, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) kernel.sum_chunk(i, kernel.chunk_max(i));
    });
    if (!kernel.all_chunks_in_range()) return false;
    T exponent = chunks_[0].exponent;
    for (int64_t i = 0; i < chunks_.size(); ++i) exponent = max(exponent, chunks_[i].exponent);
    for (int64_t i = 0; i < chunks_.size(); ++i)
      before_[i + 1] = before_[i] + chunks_[i].sum * power_of_two(double(chunks_[i].exponent) -
                                                                  double(exponent));
    return true;
  }

  // For a row out of range, the sums of its probabilities, which are stored.
  void store_softmax() {
    stored_ = true;
    softmax_.resize(k_);
    exact_row(Op::softmax, z_, softmax_.data(), k_, beta_->t);
    for (int64_t i = 0; i < chunks_.size(); ++i) {
      double sum = 0;
      for (int64_t j = 0; j < size(i); ++j) sum += double(softmax_[i * kChunkSize + j]);
      before_[i + 1] = before_[i] + sum;
    }
  }

  // At T = 0 all weights are 1 or 0; a row with NaN, or of -inf alone, has none.
  void count_ties() {
    const T m = largest_or_nan(z_, k_);
    if (m > -kInfinity<T>) dominant_ = m;
    for (int64_t i = 0; i < chunks_.size(); ++i)
      before_[i + 1] = before_[i] + double(count(z_ + i * kChunkSize, size(i), dominant_));
  }

  // The cumulative sums of a chunk, whose weights are 0 at -inf.
  void sum_within_chunk(int64_t chunk) {
    const T* z = z_ + chunk * kChunkSize;
    const int64_t n = size(chunk);
    if (stored_) return sums_.set(softmax_.data() + chunk * kChunkSize, n);
    weights_.resize(kChunkSize);
    T* e = weights_.data();
    if (!is_nan(dominant_)) {
      for (int64_t j = 0; j < n; ++j) e[j] = z[j] == dominant_;
      return sums_.set(e, n);
    }
    sum_weights<T, true, false>(z, e, n, chunks_[chunk].max, *beta_);
    const T lowest = -kInfinity<T>;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes)
      unless_equal(Vec<T>(z + j), Vec<T>(lowest), Vec<T>(e + j)).put(e + j);
    for (; j < n; ++j) e[j] = z[j] == lowest ? T(0) : e[j];
    sums_.set(e, n);
  }

  const T* z_ = nullptr;
  int64_t k_ = 0;
  const InverseTemperature<T>* beta_ = nullptr;
  T dominant_ = 0;         // at T = 0 the largest entry; else NaN
  bool stored_ = false;    // whether softmax_ has the probabilities
  Buffer<double> before_;  // the sum of all chunks before each one, and that of all
  Buffer<ChunkSums<T>> chunks_;
  Buffer<T> softmax_, weights_;
  Buffer<ChunkDraw> draws_;
  CumulativeSums sums_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
