// The functions of rows for Python: converts arrays to strided memory and divides the rows into
// tasks.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>
#include <vector>

#include "interpreter.h"
#include "memory.h"
#include "py_buffer.h"
#include "threads.h"

// The parameters of several signatures.
#define BATCH_PARAMETERS                                                                      \
  "kind: int, z: " ARRAY ", out: " ARRAY ", axis: int, t: float | " DOUBLES ", where: " ARRAY \
  " | None"
#define PLAIN_PARAMETERS \
  "z: typing.Any, axis: typing.Any, temperature: typing.Any, where: typing.Any"

namespace logitlab {

void run_batch(Batch& batch) {
  constexpr int64_t kMinEntries = 1 << 13;  // per thread
  const int64_t entries = batch.rows * batch.k;
  // A result larger than the caches would only evict what is in them.
  const int64_t item = kTypes[batch.kind].size;
  batch.stream = entries * item > (int64_t(1) << 24) && batch.k * item <= 3 << 18;
  int threads = 1;
  if (entries >= 2 * kMinEntries)
    threads = int(std::min<int64_t>(entries / kMinEntries, threads_for(entries)));
  if (batch.rows < threads && batch.k / threads >= kMinEntries) {
    batch.row_threads = threads;
    threads = 1;
  }
  // Whole groups of rows that are computed together; several tasks per thread balance the load.
  int64_t step = batch.rows;
  if (threads > 1 || entries > kTaskEntries) {
    const int64_t group = batch.k <= kMaxSmallRow || batch.z_step != item ? 16 : 4;
    if (threads > 1) {
      step = std::max<int64_t>(kMinEntries / batch.k, batch.rows / (threads * 8));
      step = std::min((step + group - 1) / group * group, (batch.rows + threads - 1) / threads);
    }
    step = std::min(step, kTaskEntries / batch.k / group * group);
    // Rows that are too long for a group are computed one by one; those across the class axis share
    // cache lines.
    const int64_t together = batch.z_step == item ? kTaskEntries / 4 : kAcrossEntries;
    step = std::max(step, std::clamp<int64_t>(together / batch.k, 1, group));
  }
  parallel_ranges(batch.rows, step, threads,
                  [&](int64_t first, int64_t last) { kernels.run(batch, first, last); });
}

namespace {

// As run_batch(), without the lock of the interpreter where that takes long.
void run(Batch& batch) {
  if (batch.rows * batch.k < 4096) {
    run_batch(batch);
  } else {
    const LockRelease release;
    run_batch(batch);
  }
}

// z and out have the same shape (in logsumexp's out, the class axis has length 1); t and `where`
// are as for BatchLayout. False, with nothing computed, where z or out is not aligned.
bool compute(Batch& b, int kind, const Py_buffer& z, const Py_buffer& out, int axis, nb::handle t,
             nb::handle where) {
  const Op op = b.op;
  check_axis(z, axis);
  require_shape("out", out, z, axis, op == Op::logsumexp);
  if (!aligned(z) || !aligned(out)) return false;
  b.kind = Kind(kind);
  b.out = static_cast<char*>(out.buf), b.out_step = out.strides[axis];
  const BatchLayout layout(b, z, &out, axis, t, where);
  if (b.rows == 0) return true;
  if (b.k == 0) {
    if (op != Op::logsumexp) return true;
    // logsumexp of no entries is that of one excluded entry.
    b.k = 1;
    static const double float64 = -std::numeric_limits<double>::infinity();
    static const float float32 = -std::numeric_limits<float>::infinity();
    static const uint16_t float16 = 0xfc00, bfloat16 = 0xff80;
    const void* excluded[] = {&float32, &float64, &float16, &bfloat16};
    b.z = static_cast<const char*>(excluded[kind]);
    b.where = nullptr;
    for (int d = 0; d < b.dims; ++d) b.z_stride[d] = 0;
  }
  run(b);
  return true;
}

bool compute(Batch& b, int kind, nb::handle z, nb::handle out, int axis, nb::handle t,
             nb::handle where) {
  const NumberType& type = type_of(kind);
  const View zv("z", z, type, PyBUF_STRIDES);
  const View ov("out", out, type,
                b.op == Op::loss ? PyBUF_STRIDES : PyBUF_STRIDES | PyBUF_WRITABLE);
  return compute(b, kind, zv.buffer, ov.buffer, axis, t, where);
}

bool compute(Op op, int kind, nb::handle z, nb::handle out, int axis, nb::handle t,
             nb::handle where) {
  Batch b;
  b.op = op;
  return compute(b, kind, z, out, axis, t, where);
}

// Whether `where` is None or an aligned array of booleans of the shape of z.
bool is_plain_mask(nb::handle where, PyArrayObject* z) {
  if (where.is_none()) return true;
  if (!PyArray_CheckExact(where.ptr())) return false;
  auto* mask = reinterpret_cast<PyArrayObject*>(where.ptr());
  return PyArray_TYPE(mask) == NPY_BOOL && PyArray_NDIM(mask) == PyArray_NDIM(z) &&
         PyArray_CompareLists(PyArray_DIMS(mask), PyArray_DIMS(z), PyArray_NDIM(z));
}

// The result for an aligned NumPy array of a standard type, in native byte order and below
// kLargeResult, an axis within its bounds, a float temperature that is not NaN, and a `where` of
// z's shape or None; else None.
nb::object compute_plain(Op op, nb::handle z, nb::handle axis, nb::handle temperature,
                         nb::handle where) {
  if (!PyArray_CheckExact(z.ptr()) || !PyLong_CheckExact(axis.ptr()) ||
      !PyFloat_CheckExact(temperature.ptr()))
    return nb::none();
  auto* array = reinterpret_cast<PyArrayObject*>(z.ptr());
  const std::optional<Kind> kind = plain_kind(array);
  const int type = PyArray_TYPE(array), dims = PyArray_NDIM(array);
  if (!kind || dims > kMaxDims || !is_plain_mask(where, array)) return nb::none();
  int overflow;
  long at = PyLong_AsLongAndOverflow(axis.ptr(), &overflow);
  if (overflow || at < -dims || at >= dims) return nb::none();
  const double t = PyFloat_AsDouble(temperature.ptr());
  if (t != t) return nb::none();
  if (at < 0) at += dims;
  const Py_buffer zb = buffer_of(array);
  PyObject* result;
  npy_intp shape[kMaxDims], strides[kMaxDims];
  Py_buffer ob;
  if (op == Op::logsumexp) {
    std::copy_n(zb.shape, at, shape);
    std::copy(zb.shape + at + 1, zb.shape + dims, shape + at);
    result = PyArray_SimpleNew(dims - 1, shape, type);
  } else if (PyArray_IS_C_CONTIGUOUS(array)) {
    result = PyArray_SimpleNew(dims, zb.shape, type);
  } else {
    result = PyArray_NewLikeArray(array, NPY_KEEPORDER, nullptr, 0);
  }
  if (!result) throw nb::python_error();
  nb::object owner = nb::steal(result);
  ob = buffer_of(reinterpret_cast<PyArrayObject*>(result));
  if (op == Op::logsumexp) {  // with the class axis of length 1
    std::copy_n(zb.shape, dims, shape);
    shape[at] = 1;
    std::copy_n(ob.strides, at, strides);
    strides[at] = ob.itemsize;
    std::copy(ob.strides + at, ob.strides + dims - 1, strides + at + 1);
    ob.ndim = dims, ob.shape = shape, ob.strides = strides;
  }
  Batch b;
  b.op = op;
  compute(b, *kind, zb, ob, int(at), temperature, where);
  if (op == Op::logsumexp && dims == 1)
    return nb::steal(PyArray_Return(reinterpret_cast<PyArrayObject*>(owner.release().ptr())));
  return owner;
}

// Contiguous rows at addresses that the caller has checked.
void compute_rows(int op, int kind, uintptr_t z, uintptr_t out, int64_t rows, int64_t k, double t) {
  require(op >= 0 && op <= 2, "op", op, "be 0, 1 or 2");
  require(z, "z", 0, "not be a null address");
  require(out, "out", 0, "not be a null address");
  if (size_of(rows, k) == 0) return;
  const int64_t item = type_of(kind).size;
  Batch b;
  b.op = Op(op), b.kind = Kind(kind);
  b.z = reinterpret_cast<const char*>(z), b.out = reinterpret_cast<char*>(out);
  b.temperature = t;
  b.k = k, b.rows = rows, b.z_step = b.out_step = item;
  b.dims = 0;
  add_axis(b, rows, k * item, (b.op == Op::logsumexp ? 1 : k) * item, 0, 0);
  run(b);
}

// The losses of labels below k, or of distributions of shape (rows, k) in the type of the
// arithmetic, beside which labels below 0 mark ignored rows; without a gradient where out is None.
void cross_entropy(int kind, nb::handle z, nb::handle out, int axis, nb::handle t, nb::handle where,
                   nb::handle label, nb::handle targets, double smoothing, nb::handle scale,
                   nb::handle loss) {
  const bool with_gradient = !out.is_none();
  const View zv("z", z, type_of(kind), PyBUF_STRIDES);
  check_axis(zv.buffer, axis);
  const int64_t entries = zv.buffer.len / zv.buffer.itemsize, k = zv.buffer.shape[axis];
  require(k > 0, "z", k, "have at least 1 class");
  if (label.is_none() && targets.is_none())
    throw std::invalid_argument("label or targets must be given, got None");
  if (scale.is_none() || loss.is_none())
    throw std::invalid_argument("scale and loss must be given, got None");
  const int64_t rows = entries / k;
  const NumberType& work = kind == kFloat64 ? kDoubles : kTypes[kFloat32];
  const ContiguousMemory labels("label", label, kLabels, rows),
      distributions("targets", targets, work, entries), scales("scale", scale, kDoubles, rows),
      losses("loss", loss, kDoubles, rows, ContiguousMemory::kWritable);
  require_labels("label", labels.data, rows, k);
  Batch b;
  b.op = with_gradient ? Op::loss_and_gradient : Op::loss;
  b.label = static_cast<const int64_t*>(labels.data);
  b.targets = distributions.data, b.smoothing = smoothing;
  b.gradient_scale = static_cast<const double*>(scales.data);
  b.loss = static_cast<double*>(losses.data);
  if (!compute(b, kind, z, with_gradient ? out : z, axis, t, where))
    throw std::invalid_argument("z and out must be aligned");
}

// The mean loss, or with a gradient both, for contiguous NumPy arrays of logits of a standard type
// below kLargeResult, and of int64 labels in range, the class axis last and a finite float
// temperature above 0; else None, also where the mean is not finite.
nb::object plain_cross_entropy(nb::handle z, nb::handle y, nb::handle axis, nb::handle temperature,
                               bool with_gradient) {
  if (!PyArray_CheckExact(z.ptr()) || !PyArray_CheckExact(y.ptr()) ||
      !PyLong_CheckExact(axis.ptr()) || !PyFloat_CheckExact(temperature.ptr()))
    return nb::none();
  auto* logits = reinterpret_cast<PyArrayObject*>(z.ptr());
  auto* targets = reinterpret_cast<PyArrayObject*>(y.ptr());
  const std::optional<Kind> kind = plain_kind(logits);
  const int dims = PyArray_NDIM(logits);
  int overflow;
  const long at = PyLong_AsLongAndOverflow(axis.ptr(), &overflow);
  const double t = PyFloat_AsDouble(temperature.ptr());
  if (!kind || *kind == kBFloat16 || !PyArray_IS_C_CONTIGUOUS(logits) ||
      PyArray_TYPE(targets) != NPY_INT64 || !PyArray_ISBEHAVED_RO(targets) ||
      !PyArray_IS_C_CONTIGUOUS(targets) || dims < 1 || dims > kMaxDims ||
      PyArray_NDIM(targets) != dims - 1 || overflow || (at != -1 && at != dims - 1) ||
      !(t > 0 && t < std::numeric_limits<double>::infinity()) ||
      !std::equal(PyArray_DIMS(targets), PyArray_DIMS(targets) + dims - 1, PyArray_DIMS(logits)))
    return nb::none();
  const int64_t rows = PyArray_SIZE(targets), k = PyArray_DIM(logits, dims - 1);
  const auto* label = static_cast<const int64_t*>(PyArray_DATA(targets));
  if (rows == 0 || k == 0 ||
      !std::all_of(label, label + rows, [k](int64_t l) { return l >= 0 && l < k; }))
    return nb::none();
  nb::object gradient;
  if (with_gradient) {
    PyObject* like = PyArray_SimpleNew(dims, PyArray_DIMS(logits), PyArray_TYPE(logits));
    if (!like) throw nb::python_error();
    gradient = nb::steal(like);
  }
  npy_intp length = rows;
  PyObject* row_losses = PyArray_SimpleNew(1, &length, NPY_DOUBLE);
  if (!row_losses) throw nb::python_error();
  const nb::object owner = nb::steal(row_losses);
  auto* losses = reinterpret_cast<PyArrayObject*>(row_losses);
  const std::vector<double> scale(size_t(rows), 1.0 / double(rows) / t);
  Batch b;
  b.op = with_gradient ? Op::loss_and_gradient : Op::loss;
  b.label = label, b.gradient_scale = scale.data();
  b.loss = static_cast<double*>(PyArray_DATA(losses));
  const Py_buffer zb = buffer_of(logits);
  const Py_buffer ob =
      with_gradient ? buffer_of(reinterpret_cast<PyArrayObject*>(gradient.ptr())) : zb;
  compute(b, *kind, zb, ob, dims - 1, temperature, nb::none());
  // As NumPy adds them.
  double sum = b.loss[0];
  if (rows < 8) {
    for (int64_t i = 1; i < rows; ++i) sum += b.loss[i];
  } else {
    const nb::object total = nb::steal(PyArray_Sum(losses, 0, NPY_DOUBLE, nullptr));
    if (!total.is_valid()) throw nb::python_error();
    sum = PyFloat_AsDouble(total.ptr());
  }
  double mean = sum / double(rows);
  if (!(mean - mean == 0)) return nb::none();
  const nb::object wide = nb::steal(PyArray_Scalar(&mean, PyArray_DESCR(losses), nullptr));
  if (!wide.is_valid()) throw nb::python_error();
  nb::object loss = wide;
  if (*kind == kFloat32) {
    float single = float(mean);
    loss = nb::steal(PyArray_Scalar(&single, PyArray_DESCR(logits), nullptr));
    if (!loss.is_valid()) throw nb::python_error();
  } else if (*kind == kFloat16) {
    loss = wide.attr("astype")("float16");
  }
  return with_gradient ? nb::object(nb::make_tuple(loss, gradient)) : loss;
}

}  // namespace

void define_rows(nb::module_& m) {
  using nb::handle;
  m.def(
      "plain_softmax",
      [](handle z, handle axis, handle t, handle where) {
        return compute_plain(Op::softmax, z, axis, t, where);
      },
      nb::arg("z").none(), nb::arg("axis").none(), nb::arg("temperature").none(),
      nb::arg("where").none(), nb::sig("def plain_softmax(" PLAIN_PARAMETERS ") -> typing.Any"));
  m.def(
      "softmax",
      [](int kind, handle z, handle out, int axis, handle t, handle where) {
        return compute(Op::softmax, kind, z, out, axis, t, where);
      },
      nb::arg("kind"), nb::arg("z"), nb::arg("out"), nb::arg("axis"), nb::arg("t"),
      nb::arg("where").none(), nb::sig("def softmax(" BATCH_PARAMETERS ") -> bool"));
  m.def(
      "plain_log_softmax",
      [](handle z, handle axis, handle t, handle where) {
        return compute_plain(Op::log_softmax, z, axis, t, where);
      },
      nb::arg("z").none(), nb::arg("axis").none(), nb::arg("temperature").none(),
      nb::arg("where").none(),
      nb::sig("def plain_log_softmax(" PLAIN_PARAMETERS ") -> typing.Any"));
  m.def(
      "log_softmax",
      [](int kind, handle z, handle out, int axis, handle t, handle where) {
        return compute(Op::log_softmax, kind, z, out, axis, t, where);
      },
      nb::arg("kind"), nb::arg("z"), nb::arg("out"), nb::arg("axis"), nb::arg("t"),
      nb::arg("where").none(), nb::sig("def log_softmax(" BATCH_PARAMETERS ") -> bool"));
  m.def(
      "plain_logsumexp",
      [](handle z, handle axis, handle t, handle where) {
        return compute_plain(Op::logsumexp, z, axis, t, where);
      },
      nb::arg("z").none(), nb::arg("axis").none(), nb::arg("temperature").none(),
      nb::arg("where").none(), nb::sig("def plain_logsumexp(" PLAIN_PARAMETERS ") -> typing.Any"));
  m.def(
      "logsumexp",
      [](int kind, handle z, handle out, int axis, handle t, handle where) {
        return compute(Op::logsumexp, kind, z, out, axis, t, where);
      },
      nb::arg("kind"), nb::arg("z"), nb::arg("out"), nb::arg("axis"), nb::arg("t"),
      nb::arg("where").none(), nb::sig("def logsumexp(" BATCH_PARAMETERS ") -> bool"));
  m.def("plain_cross_entropy", plain_cross_entropy, nb::arg("z").none(), nb::arg("y").none(),
        nb::arg("axis").none(), nb::arg("temperature").none(), nb::arg("with_gradient"),
        nb::sig("def plain_cross_entropy(z: typing.Any, y: typing.Any, axis: typing.Any, "
                "temperature: typing.Any, with_gradient: bool) -> typing.Any"));
  m.def("rows", compute_rows, nb::arg("op"), nb::arg("kind"), nb::arg("z"), nb::arg("out"),
        nb::arg("rows"), nb::arg("k"), nb::arg("t"),
        nb::sig("def rows(op: int, kind: int, z: int, out: int, rows: int, k: int, t: float) -> "
                "None"));
  m.def("cross_entropy", cross_entropy, nb::arg("kind"), nb::arg("z"), nb::arg("out").none(),
        nb::arg("axis"), nb::arg("t"), nb::arg("where").none(), nb::arg("label").none(),
        nb::arg("targets").none(), nb::arg("smoothing"), nb::arg("scale"), nb::arg("loss"),
        nb::sig("def cross_entropy(kind: int, z: " ARRAY ", out: " ARRAY " | None, axis: int, "
                "t: float | " DOUBLES ", where: " ARRAY " | None, label: " ARRAY " | None, "
                "targets: " ARRAY " | None, smoothing: float, scale: " DOUBLES ", loss: " DOUBLES
                ") -> None"));
}

}  // namespace logitlab
