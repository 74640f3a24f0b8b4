// Python arrays as strided memory, and the kernels that work on it.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "batch.h"
#include "memory.h"
#include "numpy_api.h"
#include "products_args.h"
#include "sample_args.h"
#include "scores_args.h"
#include "shard_args.h"

// The types of arguments in the signatures.
#define ARRAY "numpy.typing.NDArray[typing.Any]"
#define DOUBLES "numpy.typing.NDArray[numpy.float64]"

namespace logitlab {

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  RunFunction run;
  MomentsFunction moments;
  ProductFunction products;
  SampleFunction sample;
  ScoreFunction scores;
  SecondProductFunction second_products;
  ShardFunction shards;
};
extern const Kernels kernels;

namespace nb = nanobind;

void define_rows(nb::module_& m);
void define_products(nb::module_& m);
void define_sampling(nb::module_& m);
void define_penalties(nb::module_& m);
void define_descent(nb::module_& m);
void define_shards(nb::module_& m);
void define_xla(nb::module_& m);

// Computes all rows, on several threads; sets how they share the work. Called with or without the
// lock of the interpreter.
void run_batch(Batch& batch);

// The type of the numbers of an array, with its codes in the buffer protocol.
struct NumberType {
  const char *name, *codes;
  int size;  // bytes
};
// By Kind; bfloat16, which has no code, comes as 16-bit integers.
constexpr NumberType kTypes[] = {
    {"float32", "f", 4}, {"float64", "d", 8}, {"float16", "e", 2}, {"bfloat16 as uint16", "Hh", 2}};
constexpr NumberType kDoubles = kTypes[kFloat64], kLabels = {"int64", "lq", 8},
                     kKeys = {"uint64", "LQ", 8}, kMask = {"bool", "?Bb", 1};

// Throws ValueError "argument must rule, got value" unless `valid`. The parts of the rule are
// joined only then, as calls are short.
template <class... Parts>
void require(bool valid, const char* argument, int64_t value, const Parts&... rule) {
  if (valid) return;
  std::ostringstream message;
  message << argument << " must ";
  (message << ... << rule);
  message << ", got " << value;
  throw std::invalid_argument(message.str());
}
inline void require_size(const char* argument, const char* unit, int64_t expected, int64_t value) {
  require(value == expected, argument, value, "have ", expected, " ", unit);
}

// The memory of an array, after a check of the type of its numbers. The array must outlive it.
class View {
 public:
  View(const char* argument, nb::handle array, const NumberType& type, int flags) {
    if (view_ndarray(array, type, flags)) return;
    if (PyObject_GetBuffer(array.ptr(), &buffer, flags | PyBUF_FORMAT)) throw nb::python_error();
    const char* code = buffer.format ? buffer.format : "B";
    if (*code && std::strchr("@=^", *code)) ++code;  // native byte order
    if (*code && std::strchr(type.codes, *code) && !code[1] && buffer.itemsize == type.size) return;
    const std::string message = std::string(argument) + " must have type " + type.name +
                                ", got buffer format " + (buffer.format ? buffer.format : "B");
    PyBuffer_Release(&buffer);
    throw nb::type_error(message.c_str());
  }
  ~View() { PyBuffer_Release(&buffer); }
  View(const View&) = delete;
  char* data() const { return static_cast<char*>(buffer.buf); }
  Py_buffer buffer = {};

 private:
  // A NumPy array without the buffer protocol, which takes longer than a short computation. False
  // for other objects, and where the protocol has an error to report.
  bool view_ndarray(nb::handle array, const NumberType& type, int flags) {
    if (!PyArray_CheckExact(array.ptr())) return false;
    auto* a = reinterpret_cast<PyArrayObject*>(array.ptr());
    const bool strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES,
               contiguous = !strides || (flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS;
    const char code = PyArray_DESCR(a)->type;
    if (!code || !std::strchr(type.codes, code) || PyArray_ITEMSIZE(a) != type.size ||
        PyArray_ISBYTESWAPPED(a) || (contiguous && !PyArray_IS_C_CONTIGUOUS(a)) ||
        ((flags & PyBUF_WRITABLE) && !PyArray_ISWRITEABLE(a)))
      return false;
    buffer = buffer_of(a);
    return true;
  }
};

inline bool aligned(const Py_buffer& b) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(b.buf);
  for (int d = 0; d < b.ndim; ++d)
    if (b.strides && b.shape[d] > 1) bits |= uintptr_t(b.strides[d]);
  return bits % b.itemsize == 0;
}
inline void require_aligned(const char* argument, const Py_buffer& b) {
  if (!aligned(b)) throw std::invalid_argument(std::string(argument) + " must be aligned");
}

// Memory in C order, of an array; null for None.
class ContiguousMemory {
 public:
  // Whether it is written to; whether an int may be given, the address of an array that the caller
  // has checked.
  enum : int { kReadOnly = 0, kWritable = 1, kAddress = 2 };
  ContiguousMemory(const char* argument, nb::handle array, const NumberType& type, int64_t size,
                   int flags = kReadOnly) {
    if (array.is_none()) return;
    if ((flags & kAddress) && PyLong_Check(array.ptr())) {
      data = PyLong_AsVoidPtr(array.ptr());
      if (PyErr_Occurred()) throw nb::python_error();
      if (!data) throw std::invalid_argument(std::string(argument) + " must not be a null address");
      return;
    }
    view_.emplace(argument, array, type, PyBUF_ND | (flags & kWritable ? PyBUF_WRITABLE : 0));
    require_size(argument, "bytes", size * type.size, view_->buffer.len);
    require_aligned(argument, view_->buffer);
    data = view_->data();
  }
  void* data = nullptr;

 private:
  std::optional<View> view_;
};

inline void require_labels(const char* argument, const void* labels, int64_t rows, int64_t k) {
  const auto* label = static_cast<const uint64_t*>(labels);
  if (!label) return;
  uint64_t invalid = 0;  // its highest bit: whether a label that is not negative is above k - 1
  for (int64_t i = 0; i < rows; ++i) invalid |= (uint64_t(k - 1) - label[i]) & ~label[i];
  for (int64_t i = 0; invalid >> 63 && i < rows; ++i)
    require(int64_t(label[i]) < k, argument, int64_t(label[i]), "be < ", k);
}

// The shape of z, where `reduced` with one class.
inline void require_shape(const char* argument, const Py_buffer& b, const Py_buffer& z, int axis,
                          bool reduced) {
  require_size(argument, "dimensions", z.ndim, b.ndim);
  for (int d = 0; d < z.ndim; ++d) {
    const int64_t size = reduced && d == axis ? 1 : z.shape[d];
    require(b.shape[d] == size, argument, b.shape[d], "have length ", size, " on axis ", d);
  }
}

// The product of lengths, which must be >= 0.
inline int64_t size_of(int64_t a, int64_t b) {
  require(a >= 0 && b >= 0, "a length", std::min(a, b), "be >= 0");
  require(a == 0 || b <= std::numeric_limits<int64_t>::max() / 8 / a, "a length", b,
          "fit the memory");
  return a * b;
}

// Appends an axis, or merges it with the last one where the strides of every array allow it.
inline void add_axis(Batch& b, int64_t size, int64_t z, int64_t out, int64_t where,
                     int64_t temperature) {
  if (size == 1) return;
  int d = b.dims - 1;
  if (d >= 0 && b.z_stride[d] == z * size && b.out_stride[d] == out * size &&
      b.where_stride[d] == where * size && b.temperature_stride[d] == temperature * size) {
    b.shape[d] *= size;
  } else {
    d = b.dims++;
    b.shape[d] = size;
  }
  b.z_stride[d] = z, b.out_stride[d] = out, b.where_stride[d] = where;
  b.temperature_stride[d] = temperature;
}

// Whether a type is the bfloat16 of ml_dtypes, the only one of that name. Called with Python's lock
// or on threads of a Python without one.
inline bool is_bfloat16(PyArray_Descr* type) {
  static std::atomic<PyTypeObject*> bfloat16{nullptr};
  if (type->type_num < NPY_USERDEF) return false;
  if (type->typeobj == bfloat16) return true;
  if (bfloat16 || type->byteorder == NPY_OPPBYTE) return false;
  const nb::handle scalar = reinterpret_cast<PyObject*>(type->typeobj);
  if (!scalar.attr("__name__").equal(nb::str("bfloat16"))) return false;
  bfloat16 = type->typeobj;
  return true;
}

// The kind of an aligned array of a floating type, in native byte order and below kLargeResult.
inline std::optional<Kind> plain_kind(PyArrayObject* array) {
  if (!PyArray_ISBEHAVED_RO(array) || PyArray_NBYTES(array) >= kLargeResult) return {};
  switch (PyArray_TYPE(array)) {
    case NPY_FLOAT:
      return kFloat32;
    case NPY_DOUBLE:
      return kFloat64;
    case NPY_HALF:
      return kFloat16;
    default:
      return is_bfloat16(PyArray_DESCR(array)) ? std::optional(kBFloat16) : std::nullopt;
  }
}

inline const NumberType& type_of(int kind) {
  require(kind >= 0 && kind <= 3, "kind", kind, "be 0, 1, 2 or 3");
  return kTypes[kind];
}

inline void check_axis(const Py_buffer& z, int axis) {
  require(z.ndim <= kMaxDims, "z", z.ndim, "have at most ", kMaxDims, " dimensions");
  require(axis >= 0 && axis < z.ndim, "axis", axis, "be >= 0 and < ", z.ndim);
}

// Sets the members of a batch that follow from z, t and `where`, and holds the buffers of t and
// `where`. t is a float, or doubles of z's shape with a class axis of length 1; `where` is None, or
// bytes of z's shape; out may be null. All shapes are those of the buffers, which no other thread
// of Python can change.
class BatchLayout {
 public:
  BatchLayout(Batch& b, const Py_buffer& z, const Py_buffer* out, int axis, nb::handle t,
              nb::handle where) {
    b.z = static_cast<const char*>(z.buf);
    b.k = z.shape[axis], b.z_step = z.strides[axis];
    if (PyFloat_Check(t.ptr())) {
      b.temperature = PyFloat_AsDouble(t.ptr());
    } else {
      t_.emplace("t", t, kDoubles, PyBUF_STRIDES);
      require_shape("t", t_->buffer, z, axis, true);
      b.temperatures = t_->data();
    }
    if (!where.is_none()) {
      where_.emplace("where", where, kMask, PyBUF_STRIDES);
      require_shape("where", where_->buffer, z, axis, false);
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
  BatchLayout(const BatchLayout&) = delete;

 private:
  std::optional<View> t_, where_;
};

}  // namespace logitlab
