// Draws and truncation for Python.
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "py_buffer.h"
#include "sample_args.h"
#include "threads.h"

namespace logitlab {
namespace {

struct Tasks {
  const Sampling& sampling;
  int64_t rows;  // a task
};

void run_task(const void* context, int64_t i) {
  const Tasks& t = *static_cast<const Tasks*>(context);
  variant.sample(t.sampling, i * t.rows, std::min(t.sampling.batch.rows, (i + 1) * t.rows));
}

void run(Sampling& s) {
  constexpr int64_t kEnough = 1 << 12;  // entries and draws that are worth another thread
  const int64_t each = s.batch.k + s.n;
  int64_t threads = get_num_threads();
  if (s.batch.rows < threads && s.batch.k / threads >= 2 * kEnough)
    s.batch.row_threads = int(std::exchange(threads, 1));
  const int64_t rows = std::max<int64_t>({1, kEnough / each, s.batch.rows / (threads * 8)});
  const Tasks tasks{s, rows};
  const int64_t count = (s.batch.rows + rows - 1) / rows;
  const nb::gil_scoped_release release;
  parallel(count, int(std::min(threads, count)), run_task, &tasks);
}

void set_cut(Sampling& s, const std::vector<int>& stages, int64_t top_k, double top_p,
             double min_p) {
  if (stages.size() > 4) throw std::invalid_argument("a stage stands twice");
  for (int stage : stages) s.cut.stages[s.cut.count++] = Stage(stage);
  s.cut.top_k = top_k, s.cut.top_p = top_p, s.cut.min_p = min_p;
}

}  // namespace

// Every array but z, t and `where` is contiguous; z is aligned. In place of keys of the rows,
// uniforms of shape (rows, n) may be given.
void define_sampling(nb::module_& m) {
  using nb::handle;
  m.def(
      "keep",
      [](int kind, handle z, int axis, handle t, handle where, const std::vector<int>& stages,
         int64_t top_k, double top_p, double min_p, handle kept) {
        const View zv(z, PyBUF_STRIDES), kv(kept, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
        check_kernel_fits(kind, zv.buffer, axis);
        Sampling s;
        s.batch.kind = Kind(kind);
        const Described described(s.batch, zv.buffer, nullptr, axis, t, where);
        set_cut(s, stages, top_k, top_p, min_p);
        if (kv.buffer.len != s.batch.rows * s.batch.k)
          throw std::invalid_argument("arrays do not fit the kernel");
        s.kept = reinterpret_cast<uint8_t*>(kv.data());
        if (kv.buffer.len) run(s);
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
      nb::arg(), nb::arg());
  m.def(
      "sample",
      [](int kind, handle z, int axis, handle t, handle where, const std::vector<int>& stages,
         int64_t top_k, double top_p, double min_p, bool replacement, uint32_t key_a,
         uint32_t key_b, handle row_keys, handle found) {
        const View zv(z, PyBUF_STRIDES), rv(row_keys, PyBUF_C_CONTIGUOUS),
            fv(found, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
        check_kernel_fits(kind, zv.buffer, axis);
        Sampling s;
        s.batch.kind = Kind(kind);
        const Described described(s.batch, zv.buffer, nullptr, axis, t, where);
        set_cut(s, stages, top_k, top_p, min_p);
        const int64_t rows = s.batch.rows;
        if (fv.buffer.ndim != 2 || fv.buffer.shape[0] != rows || fv.buffer.itemsize != 8)
          throw std::invalid_argument("arrays do not fit the kernel");
        s.n = fv.buffer.shape[1];
        const bool given = rv.buffer.ndim == 2;
        if (rv.buffer.len != rows * 8 * (given ? s.n : 1))
          throw std::invalid_argument("arrays do not fit the kernel");
        s.replacement = replacement;
        s.key[0] = key_a, s.key[1] = key_b;
        if (given)
          s.uniforms = reinterpret_cast<const double*>(rv.data());
        else
          s.row_keys = reinterpret_cast<const uint64_t*>(rv.data());
        s.found = reinterpret_cast<int64_t*>(fv.data());
        if (rows && s.n && s.batch.k) run(s);
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
      nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace logitlab
