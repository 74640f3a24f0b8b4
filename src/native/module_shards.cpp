// The functions of sharded rows for Python.
#include <nanobind/nanobind.h>

#include <algorithm>

#include "interpreter.h"
#include "py_buffer.h"
#include "threads.h"

#define ADDRESS ARRAY " | int"

namespace logitlab {
namespace {

constexpr int kAddress = ContiguousMemory::kAddress;
constexpr int64_t kChunkSize = 4096;  // as of the kernels

void run(const ShardArgs& args, int64_t rows) {
  constexpr int64_t kMinEntries = 1 << 14;
  const int64_t k = std::max<int64_t>(args.k, 1), entries = rows * k;
  const int threads = entries < kMinEntries ? 1 : threads_for(entries);
  const LockRelease release;
  parallel_ranges(rows, std::max<int64_t>(1, kMinEntries / k), threads,
                  [&](int64_t first, int64_t last) { kernels.shards(args, first, last); });
}

ShardArgs arguments(ShardTask task, int op, int kind, int64_t rows, int64_t k) {
  require(op >= 0 && op <= 4, "op", op, "be from 0 to 4");
  require(kind >= 0 && kind <= 3, "kind", kind, "be from 0 to 3");
  require(rows >= 0, "rows", rows, "be >= 0");
  require(k >= 0, "k", k, "be >= 0");
  ShardArgs args{};
  args.task = task, args.op = Op(op), args.kind = Kind(kind), args.k = k;
  return args;
}

int64_t chunks_of(int64_t k) { return (k + kChunkSize - 1) / kChunkSize; }

// z of shape (rows, k), t (rows,), sums (rows, chunks of k, 5).
void shard_sums(int op, int kind, int64_t rows, int64_t k, nb::handle z, nb::handle t,
                nb::handle sums) {
  ShardArgs args = arguments(ShardTask::sums, op, kind, rows, k);
  require(args.op != Op::loss_and_gradient, "op", op, "be from 0 to 3, as there are no results");
  args.chunks = chunks_of(k);
  if (rows == 0 || k == 0) return;
  const ContiguousMemory z_memory("z", z, kTypes[kind], size_of(rows, k), kAddress),
      ts("t", t, kDoubles, rows),
      sums_memory("sums", sums, kDoubles, size_of(rows, args.chunks * kShardSums),
                  ContiguousMemory::kWritable);
  args.z = z_memory.data, args.t = static_cast<const double*>(ts.data);
  args.sums = static_cast<double*>(sums_memory.data);
  run(args, rows);
}

// z and out of shape (rows, k), of logsumexp out of shape (rows,); t (rows,), the sums of all
// chunks (rows, chunks, 5), totals (rows, 4).
void shard_results(int op, int kind, int64_t rows, int64_t k, nb::handle z, nb::handle out,
                   nb::handle t, nb::handle sums, int64_t chunks, int64_t first_chunk,
                   int64_t classes, nb::handle totals) {
  ShardArgs args = arguments(ShardTask::results, op, kind, rows, k);
  require(chunks >= 1, "chunks", chunks, "be >= 1");
  require(first_chunk >= 0, "first_chunk", first_chunk, "be >= 0");
  // Those of log_softmax are used together; its z may be any entries of the rows.
  if (args.op == Op::softmax || args.op == Op::loss_and_gradient)
    require(first_chunk + chunks_of(k) <= chunks, "chunks", chunks, "have those of the shard");
  args.chunks = chunks, args.first_chunk = first_chunk, args.classes = classes;
  if (rows == 0) return;
  const bool one = args.op == Op::logsumexp;
  const ContiguousMemory z_memory("z", z, kTypes[kind], size_of(rows, k), kAddress),
      out_memory("out", out, kTypes[kind], size_of(rows, one ? 1 : k),
                 kAddress | ContiguousMemory::kWritable),
      ts("t", t, kDoubles, rows),
      sums_memory("sums", sums, kDoubles, size_of(rows, chunks * kShardSums)),
      totals_memory("totals", totals, kDoubles, size_of(rows, kShardTotals),
                    ContiguousMemory::kWritable);
  args.z = z_memory.data, args.out = out_memory.data;
  args.t = static_cast<const double*>(ts.data);
  args.sums = static_cast<double*>(sums_memory.data);
  args.totals = static_cast<double*>(totals_memory.data);
  run(args, rows);
}

// z of shape (rows, k), one chunk each, of which `sizes` entries count; the others (rows,).
void shard_samples(int kind, int64_t rows, int64_t k, nb::handle z, nb::handle t, nb::handle sizes,
                   nb::handle maxima, nb::handle uniforms, nb::handle found) {
  ShardArgs args = arguments(ShardTask::samples, 0, kind, rows, k);
  require(k >= 1 && k <= kChunkSize, "k", k, "be from 1 to ", kChunkSize);
  if (rows == 0) return;
  const ContiguousMemory z_memory("z", z, kTypes[kind], size_of(rows, k), kAddress),
      ts("t", t, kDoubles, rows), size_memory("sizes", sizes, kLabels, rows),
      max_memory("maxima", maxima, kDoubles, rows), u("uniforms", uniforms, kDoubles, rows),
      found_memory("found", found, kLabels, rows, ContiguousMemory::kWritable);
  args.sizes = static_cast<const int64_t*>(size_memory.data);
  for (int64_t i = 0; i < rows; ++i)
    require(args.sizes[i] >= 1 && args.sizes[i] <= k, "sizes", args.sizes[i], "be from 1 to ", k);
  args.z = z_memory.data, args.t = static_cast<const double*>(ts.data);
  args.maxima = static_cast<const double*>(max_memory.data);
  args.uniforms = static_cast<const double*>(u.data);
  args.found = static_cast<int64_t*>(found_memory.data);
  run(args, rows);
}

}  // namespace

void define_shards(nb::module_& m) {
  m.def("shard_sums", shard_sums, nb::arg("op"), nb::arg("kind"), nb::arg("rows"), nb::arg("k"),
        nb::arg("z"), nb::arg("t"), nb::arg("sums"),
        nb::sig("def shard_sums(op: int, kind: int, rows: int, k: int, z: " ADDRESS ", t: " DOUBLES
                ", sums: " DOUBLES ") -> None"));
  m.def("shard_results", shard_results, nb::arg("op"), nb::arg("kind"), nb::arg("rows"),
        nb::arg("k"), nb::arg("z").none(), nb::arg("out").none(), nb::arg("t"), nb::arg("sums"),
        nb::arg("chunks"), nb::arg("first_chunk"), nb::arg("classes"), nb::arg("totals"),
        nb::sig("def shard_results(op: int, kind: int, rows: int, k: int, z: " ADDRESS
                " | None, out: " ADDRESS " | None, t: " DOUBLES ", sums: " DOUBLES
                ", chunks: int, first_chunk: int, classes: int, totals: " DOUBLES ") -> None"));
  m.def("shard_samples", shard_samples, nb::arg("kind"), nb::arg("rows"), nb::arg("k"),
        nb::arg("z"), nb::arg("t"), nb::arg("sizes"), nb::arg("maxima"), nb::arg("uniforms"),
        nb::arg("found"),
        nb::sig("def shard_samples(kind: int, rows: int, k: int, z: " ADDRESS ", t: " DOUBLES
                ", sizes: numpy.typing.NDArray[numpy.int64], maxima: " DOUBLES
                ", uniforms: " DOUBLES ", found: numpy.typing.NDArray[numpy.int64]) -> None"));
}

}  // namespace logitlab
