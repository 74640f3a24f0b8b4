// Coordinate descent for Python.
#include <nanobind/nanobind.h>

#include "coordinate_descent.h"
#include "interpreter.h"
#include "py_buffer.h"

namespace logitlab {
namespace {

constexpr int64_t kMaxFeatures = int64_t(1) << 40;  // their bytes can be computed

// hessian (size, size), x and gradient (size,), values (groups, group_size), vectors
// (groups, group_size, group_size), or None for groups of one coordinate.
double descend(nb::handle hessian, nb::handle x, nb::handle gradient, int64_t size, int64_t groups,
               int64_t group_size, nb::handle values, nb::handle vectors, double l1, double tol,
               int64_t max_sweeps) {
  require(size >= 0, "size", size, "be >= 0");
  require(group_size >= 1, "group_size", group_size, "be >= 1");
  require(groups >= 0 && groups <= size / group_size, "groups", groups, "be >= 0 and fit the size");
  if (group_size > 1 && vectors.is_none())
    throw nb::type_error("vectors must be an array for groups of several coordinates, got None");
  for (const nb::handle array : {hessian, x, gradient, values})
    if (array.is_none()) throw nb::type_error("arguments must be arrays, got None");
  const int64_t grouped = groups * group_size;
  const ContiguousMemory hessian_memory("hessian", hessian, kDoubles, size_of(size, size)),
      x_memory("x", x, kDoubles, size, ContiguousMemory::kWritable),
      gradient_memory("gradient", gradient, kDoubles, size, ContiguousMemory::kWritable),
      values_memory("values", values, kDoubles, grouped),
      vectors_memory("vectors", vectors, kDoubles, size_of(grouped, group_size));
  const QuadraticModel model{static_cast<const double*>(hessian_memory.data),
                             size,
                             groups,
                             group_size,
                             l1,
                             static_cast<const double*>(values_memory.data),
                             static_cast<const double*>(vectors_memory.data)};
  const LockRelease release;
  return coordinate_descent(model, static_cast<double*>(x_memory.data),
                            static_cast<double*>(gradient_memory.data), tol, max_sweeps);
}

// x, gradient (rows, features + has_intercept), a (rows,), c (features, features) or (features,),
// factors (rows, features + has_intercept, rank), signs (rank,).
double descend_structured(nb::handle x, nb::handle gradient, int64_t rows, int64_t features,
                          bool has_intercept, bool is_diagonal, bool grouped, nb::handle a,
                          nb::handle c, int64_t rank, nb::handle factors, nb::handle signs,
                          double l1, double l2, double tol, int64_t max_sweeps) {
  require(rows >= 1, "rows", rows, "be >= 1");
  require(features >= 0 && features < kMaxFeatures, "features", features, "be >= 0 and < 2^40");
  for (const nb::handle array : {x, gradient, a, c, factors, signs})
    if (array.is_none()) throw nb::type_error("arguments must be arrays, got None");
  const int64_t size = size_of(rows, features + has_intercept);
  const ContiguousMemory x_memory("x", x, kDoubles, size, ContiguousMemory::kWritable),
      gradient_memory("gradient", gradient, kDoubles, size), a_memory("a", a, kDoubles, rows),
      c_memory("c", c, kDoubles, is_diagonal ? features : size_of(features, features)),
      factor_memory("factors", factors, kDoubles, size_of(size, rank)),
      sign_memory("signs", signs, kDoubles, rank);
  const StructuredModel model{rows,
                              features,
                              rank,
                              has_intercept,
                              is_diagonal,
                              grouped,
                              static_cast<const double*>(a_memory.data),
                              static_cast<const double*>(c_memory.data),
                              static_cast<const double*>(factor_memory.data),
                              static_cast<const double*>(sign_memory.data),
                              l1,
                              l2};
  const LockRelease release;
  return structured_descent(model, static_cast<double*>(x_memory.data),
                            static_cast<const double*>(gradient_memory.data), tol, max_sweeps);
}

}  // namespace

void define_descent(nb::module_& m) {
  m.def("coordinate_descent", descend, nb::arg("hessian"), nb::arg("x"), nb::arg("gradient"),
        nb::arg("size"), nb::arg("groups"), nb::arg("group_size"), nb::arg("values"),
        nb::arg("vectors").none(), nb::arg("l1"), nb::arg("tol"), nb::arg("max_sweeps"),
        nb::sig("def coordinate_descent(hessian: " DOUBLES ", x: " DOUBLES ", gradient: " DOUBLES
                ", size: int, groups: int, group_size: int, values: " DOUBLES ", vectors: " DOUBLES
                " | None, l1: float, tol: float, max_sweeps: int) -> float"));
  m.def("structured_descent", descend_structured, nb::arg("x"), nb::arg("gradient"),
        nb::arg("rows"), nb::arg("features"), nb::arg("has_intercept"), nb::arg("is_diagonal"),
        nb::arg("grouped"), nb::arg("a"), nb::arg("c"), nb::arg("rank"), nb::arg("factors"),
        nb::arg("signs"), nb::arg("l1"), nb::arg("l2"), nb::arg("tol"), nb::arg("max_sweeps"),
        nb::sig("def structured_descent(x: " DOUBLES ", gradient: " DOUBLES
                ", rows: int, features: int, has_intercept: bool, is_diagonal: bool, "
                "grouped: bool, a: " DOUBLES ", c: " DOUBLES ", rank: int, factors: " DOUBLES
                ", signs: " DOUBLES ", l1: float, l2: float, tol: float, max_sweeps: int) -> "
                "float"));
}

}  // namespace logitlab
