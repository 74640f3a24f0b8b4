// The functions of contiguous rows for Python: products with derivatives, scores, and the loss that
// temperature scaling minimises.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <vector>

#include "interpreter.h"
#include "py_buffer.h"
#include "threads.h"

namespace logitlab {
namespace {

// Float or double of shape (n, k) in C order, k >= 1.
struct RowsView {
  RowsView(const char* argument, nb::handle array, int kind)
      : view(argument, array, checked(kind), PyBUF_ND) {
    require_size(argument, "dimensions", 2, view.buffer.ndim);
    require_aligned(argument, view.buffer);
    n = view.buffer.shape[0], k = view.buffer.shape[1];
    require(k > 0, argument, k, "have at least 1 class");
  }
  static const NumberType& checked(int kind) {
    require(kind == kFloat32 || kind == kFloat64, "kind", kind, "be 0 or 1");
    return kTypes[kind];
  }
  const View view;
  int64_t n, k;
};

// Calls f(first, last) for the rows, several at a time on each thread.
template <class F>
void run_rows(const RowsView& rows, const F& f) {
  constexpr int64_t kMinEntries = 1 << 14;
  const int64_t entries = rows.n * rows.k;
  const int threads = entries < kMinEntries ? 1 : threads_for(entries);
  const LockRelease release;
  parallel_ranges(rows.n, std::max<int64_t>(1, kMinEntries / rows.k), threads, f);
}

// z of shape (n, k), y int64 of n labels in range, out of shape (n, 4); all in C order.
void moments(int kind, nb::handle z, nb::handle y, double t, nb::handle out) {
  const RowsView rows("z", z, kind);
  const int64_t n = rows.n, k = rows.k;
  if (y.is_none() || out.is_none())
    throw std::invalid_argument("y and out must be given, got None");
  const ContiguousMemory labels("y", y, kLabels, n),
      results("out", out, kDoubles, 4 * n, ContiguousMemory::kWritable);
  require_labels("y", labels.data, n, k);
  run_rows(rows, [&](int64_t first, int64_t last) {
    kernels.moments(Kind(kind), rows.view.data(), static_cast<const int64_t*>(labels.data), k, t,
                    static_cast<double*>(results.data), first, last);
  });
}

// Arrays of shape (n, k, inner); a Jacobian, for which inner is 1 and v is p, has an out of shape
// (n, k, k). The slope is a float, or doubles of shape (n, inner). Where p is None it is the
// softmax of z at temperature t, and inner is 1.
void products(int product, int kind, int64_t n, int64_t k, int64_t inner, nb::handle p,
              nb::handle v, nb::handle z, nb::handle out, nb::handle slope, double t) {
  require(product >= 0 && product <= 2, "product", product, "be 0, 1 or 2");
  const bool jacobian = Product(product) == Product::jacobian;
  require(kind == kFloat32 || kind == kFloat64, "kind", kind, "be 0 or 1");
  require(inner == 1 || (inner >= kMinColumns && !jacobian && !p.is_none()), "inner", inner,
          "be 1, or >= ", kMinColumns, " for a product with a given p");
  if (p.is_none() && (jacobian || z.is_none()))
    throw std::invalid_argument("p must be an array for a Jacobian or without z, got None");
  const int64_t size = size_of(size_of(n, k), inner), work = jacobian ? size_of(size, k) : size;
  if (work == 0) return;
  if (v.is_none() || out.is_none() || slope.is_none())
    throw std::invalid_argument("v, out and slope must be given, got None");
  const NumberType& type = kTypes[kind];
  constexpr int flags = ContiguousMemory::kAddress;
  const ContiguousMemory p_memory("p", p, type, size, flags), v_memory("v", v, type, size, flags),
      z_memory("z", z, type, size, flags),
      out_memory("out", out, type, work, flags | ContiguousMemory::kWritable);
  std::vector<double> equal_slopes;
  std::optional<ContiguousMemory> slopes;
  if (PyFloat_Check(slope.ptr()))
    equal_slopes.assign(size_t(n * inner), PyFloat_AS_DOUBLE(slope.ptr()));
  else
    slopes.emplace("slope", slope, kDoubles, n * inner);
  const ProductArgs args{Product(product),
                         Kind(kind),
                         p_memory.data,
                         v_memory.data,
                         z_memory.data,
                         t,
                         out_memory.data,
                         slopes ? static_cast<const double*>(slopes->data) : equal_slopes.data(),
                         n,
                         k,
                         inner,
                         work < (1 << 14) ? 1 : threads_for(work)};
  const LockRelease release;
  // As a task, which may be interrupted by a signal handler that calls a kernel.
  parallel_ranges(1, 1, 1, [&](int64_t, int64_t) { kernels.products(args); });
}

// z of shape (n, k), for the divergence `other` too; t and out of shape (n,). All in C order.
void scores(int kind, nb::handle z, nb::handle other, nb::handle t, nb::handle out) {
  const RowsView rows("z", z, kind);
  const int64_t n = rows.n, k = rows.k;
  if (t.is_none() || out.is_none())
    throw std::invalid_argument("t and out must be given, got None");
  const ContiguousMemory others("other", other, kTypes[kind], n * k), ts("t", t, kDoubles, n),
      results("out", out, kDoubles, n, ContiguousMemory::kWritable);
  const ScoreArgs args{Kind(kind),
                       rows.view.data(),
                       others.data,
                       k,
                       static_cast<const double*>(ts.data),
                       static_cast<double*>(results.data)};
  run_rows(rows, [&](int64_t first, int64_t last) { kernels.scores(args, first, last); });
}

// p, u, v and out of shape (n, k); the slope 1/T of shape (n,). All in C order.
void second_products(int kind, nb::handle p, nb::handle u, nb::handle v, nb::handle slope,
                     nb::handle out) {
  const RowsView rows("p", p, kind);
  const int64_t n = rows.n, k = rows.k;
  if (u.is_none() || v.is_none() || slope.is_none() || out.is_none())
    throw std::invalid_argument("u, v, slope and out must be given, got None");
  const ContiguousMemory us("u", u, kTypes[kind], n * k), vs("v", v, kTypes[kind], n * k),
      slopes("slope", slope, kDoubles, n),
      results("out", out, kTypes[kind], n * k, ContiguousMemory::kWritable);
  const SecondProductArgs args{
      Kind(kind), rows.view.data(), us.data,
      vs.data,    results.data,     static_cast<const double*>(slopes.data),
      k};
  run_rows(rows, [&](int64_t first, int64_t last) { kernels.second_products(args, first, last); });
}

}  // namespace

void define_products(nb::module_& m) {
  m.def("products", products, nb::arg("product"), nb::arg("kind"), nb::arg("n"), nb::arg("k"),
        nb::arg("inner"), nb::arg("p").none(), nb::arg("v"), nb::arg("z").none(), nb::arg("out"),
        nb::arg("slope"), nb::arg("t") = 1.0,
        nb::sig("def products(product: int, kind: int, n: int, k: int, inner: int, "
                "p: " ARRAY " | int | None, v: " ARRAY " | int, z: " ARRAY " | int | None, "
                "out: " ARRAY " | int, slope: float | " DOUBLES ", t: float = 1.0) -> None"));
  m.def("moments", moments, nb::arg("kind"), nb::arg("z"), nb::arg("y"), nb::arg("t"),
        nb::arg("out"),
        nb::sig("def moments(kind: int, z: " ARRAY ", y: numpy.typing.NDArray[numpy.int64], "
                "t: float, out: " DOUBLES ") -> None"));
  m.def("scores", scores, nb::arg("kind"), nb::arg("z"), nb::arg("other").none(), nb::arg("t"),
        nb::arg("out"),
        nb::sig("def scores(kind: int, z: " ARRAY ", other: " ARRAY " | None, t: " DOUBLES
                ", out: " DOUBLES ") -> None"));
  m.def("second_products", second_products, nb::arg("kind"), nb::arg("p"), nb::arg("u"),
        nb::arg("v"), nb::arg("slope"), nb::arg("out"),
        nb::sig("def second_products(kind: int, p: " ARRAY ", u: " ARRAY ", v: " ARRAY
                ", slope: " DOUBLES ", out: " ARRAY ") -> None"));
}

}  // namespace logitlab
