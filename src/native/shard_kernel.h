// Rows whose classes lie in several shards: the sums of the chunks of a shard, and its results from
// the sums of all chunks. A row in shards that begin at multiples of the chunk has the sums of the
// whole row, and so its results to the last bit.
#pragma once

#include <type_traits>

#include "cumulative.h"
#include "layout.h"
#include "row_kernel.h"
#include "shard_args.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
struct ShardWorkspace {
  Buffer<T> z, out;
  Buffer<ChunkSums<T>> chunks;
  CumulativeSums cumulative;

  static ShardWorkspace& of_thread() {
    thread_local ShardWorkspace workspace;
    return workspace;
  }
};

template <class S, class T>
class Shards {
 public:
  explicit Shards(const ShardArgs& args)
      : args_(args), workspace_(ShardWorkspace<T>::of_thread()) {}

  void run(int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      if (args_.task == ShardTask::sums)
        sum(row);
      else if (args_.task == ShardTask::results)
        write(row);
      else
        sample(row);
    }
  }

 private:
  static constexpr bool kSameType = std::is_same_v<S, T>;

  // k entries of the row as T.
  const T* load(int64_t row, int64_t k) {
    const S* z = static_cast<const S*>(args_.z) + row * args_.k;
    if constexpr (kSameType) {
      return z;
    } else {
      workspace_.z.resize(k);
      widen_all(z, workspace_.z.data(), k);
      return workspace_.z.data();
    }
  }

  void sum(int64_t row) {
    const InverseTemperature<T> beta = inverse_temperature<T>(args_.t[row]);
    const T* z = load(row, args_.k);
    workspace_.chunks.resize(args_.chunks);
    ChunkSums<T>* chunks = workspace_.chunks.data();
    const RowKernel<T> kernel{args_.op, z, nullptr, args_.k, beta, nullptr, chunks, false};
    double* to = args_.sums + row * args_.chunks * kShardSums;
    for (int64_t i = 0; i < args_.chunks; ++i, to += kShardSums) {
      chunks[i] = {kernel.chunk_max(i), T(0), kInfinity<double>, 0, 0};
      if (beta.in_range) kernel.sum_chunk(i, chunks[i].max);
      const ChunkSums<T>& chunk = chunks[i];
      to[0] = double(chunk.max), to[1] = double(chunk.exponent), to[2] = chunk.sum;
      to[3] = chunk.sum_error, to[4] = double(chunk.ties);
    }
  }

  ChunkSums<T>* load_chunks(int64_t row) {
    workspace_.chunks.resize(args_.chunks);
    const double* from = args_.sums + row * args_.chunks * kShardSums;
    for (int64_t i = 0; i < args_.chunks; ++i, from += kShardSums)
      workspace_.chunks[i] = {T(from[0]), T(from[1]), from[2], from[3], int64_t(from[4])};
    return workspace_.chunks.data();
  }

  void write(int64_t row) {
    const InverseTemperature<T> beta = inverse_temperature<T>(args_.t[row]);
    ChunkSums<T>* chunks = load_chunks(row);
    // With shorter chunks inside of the row than at its end, it counts as longer than it is.
    const int64_t k =
        chunk_count(args_.classes) == args_.chunks ? args_.classes : args_.chunks * kChunkSize;
    const RowKernel<T> whole{args_.op, nullptr, nullptr, k, beta, nullptr, chunks, false};
    typename RowKernel<T>::Totals total;
    double* totals = args_.totals + row * kShardTotals;
    fill(totals, kShardTotals, 0.0);
    if (!beta.in_range || !whole.all_chunks_in_range() || !whole.combine_chunks(total)) return;
    totals[0] = double(total.max), totals[3] = 1;
    if (args_.op != Op::softmax) totals[1] = total.log_sum, totals[2] = total.log_sum_low;
    if (args_.op != Op::loss) write_results(row, beta, chunks + args_.first_chunk, total);
  }

  void write_results(int64_t row, const InverseTemperature<T>& beta, ChunkSums<T>* chunks,
                     const typename RowKernel<T>::Totals& total) {
    const bool one = args_.op == Op::logsumexp;
    const int64_t size = one ? 1 : args_.k;
    S* to = static_cast<S*>(args_.out) + row * size;
    T* out;
    if constexpr (kSameType) {
      out = to;
    } else {
      workspace_.out.resize(size);
      out = workspace_.out.data();
    }
    const bool needs_z = !one && size > 0;
    const T* z = needs_z ? load(row, args_.k) : nullptr;
    const RowKernel<T> kernel{args_.op, z, out, args_.k, beta, out, chunks, false};
    const bool needs_weights = args_.op == Op::softmax || args_.op == Op::loss_and_gradient;
    for (int64_t i = 0; i < (one ? 1 : kernel.count()); ++i) {
      if (needs_weights) kernel.sum_chunk(i, kernel.chunk_max(i));
      kernel.write_chunk(i, total);
    }
    if constexpr (!kSameType) narrow_all(out, to, size);
  }

  // As LongRow samples within a chunk.
  void sample(int64_t row) {
    const InverseTemperature<T> beta = inverse_temperature<T>(args_.t[row]);
    const int64_t n = args_.sizes[row];
    const T* z = load(row, n);
    workspace_.out.resize(n);
    T* e = workspace_.out.data();
    sum_weights<T, true, false>(z, e, n, T(args_.maxima[row]), beta);
    for (int64_t j = 0; j < n; ++j) e[j] = z[j] == -kInfinity<T> ? T(0) : e[j];
    workspace_.cumulative.set(e, n);
    const double target = args_.uniforms[row] * workspace_.cumulative.total();
    workspace_.cumulative.find(&target, 1, args_.found + row);
  }

  const ShardArgs& args_;
  ShardWorkspace<T>& workspace_;
};

void run_shards(const ShardArgs& args, int64_t first, int64_t last) {
  switch (args.kind) {
    case kFloat32:
      return Shards<float, float>(args).run(first, last);
    case kFloat64:
      return Shards<double, double>(args).run(first, last);
    case kFloat16:
      return Shards<Half, float>(args).run(first, last);
    case kBFloat16:
      return Shards<BFloat, float>(args).run(first, last);
  }
}

}  // namespace

extern const ShardFunction shards;
const ShardFunction shards = run_shards;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
