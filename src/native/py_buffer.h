// Python's arrays as strided memory, and the variant of the kernels that works on it.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <stdexcept>

#include "batch.h"
#include "products_args.h"
#include "sample_args.h"

namespace logitlab {

// The kernels of the instruction set in use.
struct Variant {
  const char* name;
  Run run;
  MomentsRun moments;
  ProductRun products;
  Sample sample;
};
extern const Variant variant;

namespace nb = nanobind;

void define_sampling(nb::module_& m);

constexpr int kItem[] = {4, 8, 2, 2};  // bytes, by Kind

class View {
 public:
  View(nb::handle array, int flags) {
    if (PyObject_GetBuffer(array.ptr(), &buffer, flags)) throw nb::python_error();
  }
  ~View() { PyBuffer_Release(&buffer); }
  View(const View&) = delete;
  char* data() const { return static_cast<char*>(buffer.buf); }
  Py_buffer buffer;
};

inline bool aligned(const Py_buffer& b) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(b.buf);
  for (int d = 0; d < b.ndim; ++d)
    if (b.shape[d] > 1) bits |= uintptr_t(b.strides[d]);
  return bits % b.itemsize == 0;
}

// Appends an axis, or merges it with the last one where every array runs on evenly.
inline void add_axis(Batch& b, int64_t size, int64_t z, int64_t out, int64_t where, int64_t t) {
  if (size == 1) return;
  if (b.dims) {
    const int d = b.dims - 1;
    if (b.z_stride[d] == z * size && b.out_stride[d] == out * size &&
        b.where_stride[d] == where * size && b.t_stride[d] == t * size) {
      b.shape[d] *= size;
      b.z_stride[d] = z, b.out_stride[d] = out, b.where_stride[d] = where, b.t_stride[d] = t;
      return;
    }
  }
  const int d = b.dims++;
  b.shape[d] = size;
  b.z_stride[d] = z, b.out_stride[d] = out, b.where_stride[d] = where, b.t_stride[d] = t;
}

inline void check_kernel_fits(int kind, const Py_buffer& z, int axis) {
  if (kind < 0 || kind > 3 || z.itemsize != kItem[kind] || axis < 0 || axis >= z.ndim ||
      z.ndim > kMaxDims)
    throw std::invalid_argument("arrays do not fit the kernel");
}

// Fills in what a batch says of z, t, `where` and the rows, and keeps the memory of t and `where`.
// t is a float, or doubles of z's shape with a class axis of length 1; `where` None, or bytes of
// z's shape; out may be null.
class Described {
 public:
  Described(Batch& b, const Py_buffer& z, const Py_buffer* out, int axis, nb::handle t,
            nb::handle where) {
    b.z = static_cast<const char*>(z.buf);
    b.k = z.shape[axis], b.z_step = z.strides[axis];
    if (PyFloat_Check(t.ptr())) {
      b.temperature = PyFloat_AsDouble(t.ptr());
    } else {
      t_.emplace(t, PyBUF_STRIDES);
      b.t = t_->data();
    }
    if (!where.is_none()) {
      where_.emplace(where, PyBUF_STRIDES);
      b.where = where_->data();
      b.where_step = where_->buffer.strides[axis];
    }
    b.dims = 0, b.rows = 1;
    for (int d = 0; d < z.ndim; ++d) {
      if (d == axis) continue;
      b.rows *= z.shape[d];
      add_axis(b, z.shape[d], z.strides[d], out ? out->strides[d] : 0,
               where_ ? where_->buffer.strides[d] : 0, t_ ? t_->buffer.strides[d] : 0);
    }
  }
  Described(const Described&) = delete;

 private:
  std::optional<View> t_, where_;
};

}  // namespace logitlab
