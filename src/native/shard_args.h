// The arguments of the kernels of rows whose classes lie in several arrays, the shards.
//
// A shard is cut into chunks, as a row. Five doubles hold the sums of a chunk: the largest entry,
// its N, the sum of the weights 2^(z c - N), its rounding error and the number of largest entries
// that are not in the sum. Where a chunk is out of the range of the kernels, the sum is infinite.
#pragma once

#include "batch.h"

namespace logitlab {

constexpr int64_t kShardSums = 5, kShardTotals = 4;

enum class ShardTask { sums, results, samples };

// Contiguous rows of `k` classes, as numbers of `kind`; T is above 0. `op` is softmax, or another
// one whose sums are without the largest entries.
struct ShardArgs {
  ShardTask task;
  Op op;
  Kind kind;
  const void* z;
  int64_t k;
  const double* t;          // per row
  double* sums = nullptr;   // per row: those of its `chunks` chunks
  int64_t chunks = 0;       // of this shard, or of all shards where there are results
  int64_t first_chunk = 0;  // of this shard
  int64_t classes = 0;      // of all shards
  void* out = nullptr;      // results, of the type of z
  double* totals =
      nullptr;  // per row: m, log sum exp((z - m)/T), its error; 1 where it has results
  // Of samples, one for each row, which is one chunk of `sizes` classes, padded to k.
  const int64_t* sizes = nullptr;
  const double *maxima = nullptr, *uniforms = nullptr;
  int64_t* found = nullptr;
};
using ShardFunction = void (*)(const ShardArgs&, int64_t first, int64_t last);

namespace v2 {
extern const ShardFunction shards;
}
namespace v3 {
extern const ShardFunction shards;
}
namespace v4 {
extern const ShardFunction shards;
}
namespace neon {
extern const ShardFunction shards;
}

}  // namespace logitlab
