// Sampling by the inverse CDF, truncation, and sampling without replacement, row by row.
//
// Up to one chunk of classes, u times the total is searched for in the cumulative sums of the
// softmax, in double; longer rows are in long_row.h. A class of probability 0 is never sampled.
// Every result depends on the row and its key alone.
#pragma once

#include <type_traits>

#include "batch_runner.h"
#include "cumulative.h"
#include "gumbel_top_k.h"
#include "long_row.h"
#include "philox.h"
#include "truncated_row.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Samples of a row computed at once.
constexpr int64_t kMaxSamplesAtOnce = 4096;

template <class T>
struct SampleWorkspace {
  Buffer<T> weights;
  Buffer<double> uniforms, temperatures;
  CumulativeSums sums;
  TruncatedRow<T> row;
  LongRow<T> long_row;

  static SampleWorkspace& of_thread() {
    thread_local SampleWorkspace workspace;
    return workspace;
  }
  void release_large() {
    if (row.capacity() + long_row.capacity() <= int64_t(1) << 22) return;
    row.release();
    long_row.release();
  }
};

template <class S, class T>
class Sampler {
 public:
  explicit Sampler(const SampleArgs& args)
      : args_(args),
        batch_(args.batch),
        k_(args.batch.k),
        key_{args.key[0], args.key[1]},
        workspace_(SampleWorkspace<T>::of_thread()) {}
  ~Sampler() { workspace_.release_large(); }

  void run(int64_t first, int64_t last) {
    const bool plain = args_.truncation.count == 0 && args_.replacement && !args_.kept;
    if (plain && k_ <= kChunkSize) return sample_short_rows(first, last);
    RowIterator rows(batch_, first);
    for (int64_t row = first; row < last; ++row, rows.next())
      compute_row(row, rows.offsets(), rows.temperature());
  }

 private:
  // Blocks of rows of one chunk each, with the softmax kernel.
  void sample_short_rows(int64_t first, int64_t last) {
    const int64_t width =
        clamp<int64_t>(min((int64_t(1) << 15) / k_, kMaxSamplesAtOnce / args_.n), 1, last - first);
    const int64_t samples = min(args_.n, kMaxSamplesAtOnce);
    workspace_.weights.resize(width * k_);
    workspace_.uniforms.resize(width * samples);
    workspace_.temperatures.resize(width);
    T* weights = workspace_.weights.data();
    double* temperatures = batch_.temperatures ? workspace_.temperatures.data() : nullptr;
    const bool contiguous =
        !batch_.temperatures && !batch_.where && batch_.z_step == sizeof(S) &&
        (batch_.dims == 0 || (batch_.dims == 1 && batch_.z_stride[0] == k_ * int64_t(sizeof(S))));
    RowIterator iterator(batch_, first);
    for (int64_t row = first; row < last; row += width) {
      const int64_t rows = min(width, last - row);
      if (contiguous) {
        widen_all(reinterpret_cast<const S*>(batch_.z) + row * k_, weights, rows * k_);
      } else {
        for (int64_t r = 0; r < rows; ++r, iterator.next()) {
          load_row<S>(batch_, iterator.offsets(), false, weights + r * k_);
          if (temperatures) temperatures[r] = iterator.temperature();
        }
      }
      softmax_rows(weights, weights, rows, k_, batch_.temperature, temperatures, 1);
      for (int64_t j = 0; j < args_.n; j += samples) {
        const int64_t n = min(samples, args_.n - j);
        if (j) check_signals();
        load_uniforms(row, rows, j, n);
        for (int64_t r = 0; r < rows; ++r) {
          if (j == 0 || rows > 1) workspace_.sums.set(weights + r * k_, k_);
          search(workspace_.uniforms.data() + r * n, n, args_.found + (row + r) * args_.n + j);
        }
      }
    }
  }

  // One row of any length, with truncation.
  void compute_row(int64_t row_number, const Offsets& offsets, double t) {
    TruncatedRow<T>& row = workspace_.row;
    if (std::is_same_v<S, T> && batch_.z_step == sizeof(T) && !batch_.where) {
      row.set(reinterpret_cast<const T*>(batch_.z + offsets.z), k_);
    } else {
      T* copy = row.reserve(k_);
      load_row<S>(batch_, offsets, false, copy);
      row.set(copy, k_);
    }
    const bool valid = row.truncate(args_.truncation, row_number, t);
    if (args_.used_temperatures) args_.used_temperatures[row_number] = t;
    if (args_.kept) return row.write_mask(args_.kept + row_number * k_, k_);
    int64_t* found = args_.found + row_number * args_.n;
    fill<int64_t>(found, args_.n, -1);
    if (!valid) return;
    if (args_.replacement)
      sample_row(row_number, t, found);
    else
      sample_without_replacement(row, key_, args_.row_keys[row_number], t, args_.n,
                                 batch_.row_threads, found);
  }

  void sample_row(int64_t row_number, double t, int64_t* found) {
    const TruncatedRow<T>& row = workspace_.row;
    const InverseTemperature<T> beta = inverse_temperature<T>(t);
    const bool one_chunk = row.size() <= kChunkSize;
    if (one_chunk)
      sum_short_row(beta);
    else
      workspace_.long_row.set(row.z(), row.size(), beta, batch_.row_threads);
    const int64_t samples = min(args_.n, kMaxSamplesAtOnce);
    workspace_.uniforms.resize(samples);
    for (int64_t j = 0; j < args_.n; j += samples) {
      const int64_t n = min(samples, args_.n - j);
      if (j) check_signals();
      load_uniforms(row_number, 1, j, n);
      if (one_chunk)
        search(workspace_.uniforms.data(), n, found + j);
      else
        workspace_.long_row.sample(workspace_.uniforms.data(), n, found + j);
    }
    if (row.truncated() && found[0] >= 0)
      for (int64_t j = 0; j < args_.n; ++j) found[j] = row.class_of(found[j]);
  }

  void sum_short_row(const InverseTemperature<T>& beta) {
    const TruncatedRow<T>& row = workspace_.row;
    workspace_.weights.resize(kChunkSize);
    T* e = workspace_.weights.data();
    ChunkSums<T> chunk;
    const RowKernel<T> kernel{Op::softmax, row.z(), e, row.size(), beta, e, &chunk, false};
    typename RowKernel<T>::Totals total;
    if (!kernel.run(1, total)) exact_row(Op::softmax, row.z(), e, row.size(), beta.t);
    workspace_.sums.set(e, row.size());
  }

  // The uniform numbers of samples [first, first + n) of some rows.
  void load_uniforms(int64_t row, int64_t rows, int64_t first, int64_t n) {
    double* u = workspace_.uniforms.data();
    if (!args_.uniforms) return uniforms_of_rows(key_, args_.row_keys + row, rows, first, n, u);
    for (int64_t r = 0; r < rows; ++r)
      copy(args_.uniforms + (row + r) * args_.n + first, n, u + r * n);
  }

  // n samples from the weights summed up last; overwrites the uniform numbers.
  void search(double* uniforms, int64_t n, int64_t* found) {
    const double total = workspace_.sums.total();
    if (!(total > 0)) return fill<int64_t>(found, n, -1);
    for (int64_t i = 0; i < n; ++i) uniforms[i] *= total;
    workspace_.sums.find(uniforms, n, found);
  }

  const SampleArgs& args_;
  const Batch& batch_;
  const int64_t k_;
  const Key key_;
  SampleWorkspace<T>& workspace_;
};

void sample_batch(const SampleArgs& args, int64_t first, int64_t last) {
  switch (args.batch.kind) {
    case kFloat32:
      return Sampler<float, float>(args).run(first, last);
    case kFloat64:
      return Sampler<double, double>(args).run(first, last);
    case kFloat16:
      return Sampler<Half, float>(args).run(first, last);
    case kBFloat16:
      return Sampler<BFloat, float>(args).run(first, last);
  }
}

}  // namespace

extern const SampleFunction sample;
const SampleFunction sample = sample_batch;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
