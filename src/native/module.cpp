// The Python module: arrays as strided memory, cut into tasks for the kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "batch.h"
#include "memory.h"
#include "products_args.h"
#include "py_buffer.h"
#include "threads.h"

namespace logitlab {
namespace {

// The best instruction set at hand, or a lower one that LOGITLAB_ISA names.
Variant choose() {
#if defined(LOGITLAB_X86_VARIANTS)
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2");
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* given = std::getenv("LOGITLAB_ISA");
  const std::string most = given ? given : "v4";
  if (has_v4 && most != "v3" && most != "v2")
    return {"v4", v4::run, v4::moments, v4::products, v4::sample};
  if (has_v3 && most != "v2") return {"v3", v3::run, v3::moments, v3::products, v3::sample};
  return {"v2", v2::run, v2::moments, v2::products, v2::sample};
#elif defined(__aarch64__)
  return {"neon", neon::run, neon::moments, neon::products, neon::sample};
#else
  return {"generic", v2::run, v2::moments, v2::products, v2::sample};
#endif
}

}  // namespace

extern const Variant variant;
const Variant variant = choose();

namespace {

// One value for each row, contiguous.
template <class T>
using PerRow = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

struct Tasks {
  const Batch& batch;
  int64_t rows;  // a task
};

void run_task(const void* context, int64_t i) {
  const Tasks& t = *static_cast<const Tasks*>(context);
  variant.run(t.batch, i * t.rows, std::min(t.batch.rows, (i + 1) * t.rows));
}

void run(Batch& b) {
  constexpr int64_t kEnough = 1 << 13;  // entries that are worth another thread
  const int64_t entries = b.rows * b.k;
  int threads = 1;
  if (entries >= 2 * kEnough)
    threads = int(std::min<int64_t>(entries / kEnough, threads_worth(entries)));
  if (b.rows < threads && b.k / threads >= kEnough) {
    b.row_threads = threads;
    threads = 1;
  }
  // Whole groups of rows, several tasks a thread, so that none waits long for another.
  int64_t rows = b.rows;
  if (threads > 1) {
    rows = std::max<int64_t>(kEnough / b.k, b.rows / (threads * 8));
    const int64_t group = b.k <= kFew || b.z_step != kItem[b.kind] ? 16 : 4;
    rows = std::min((rows + group - 1) / group * group, (b.rows + threads - 1) / threads);
    rows = std::max<int64_t>(rows, 1);
  }
  const Tasks tasks{b, rows};
  const int64_t count = (b.rows + rows - 1) / rows;
  if (entries < 4096) {
    parallel(count, 1, run_task, &tasks);
  } else {
    const nb::gil_scoped_release release;
    parallel(count, threads, run_task, &tasks);
  }
}

// z and out of one shape (of logsumexp's out, the class axis has length 1); t a float, or doubles
// of out's shape with a class axis of length 1; where None, or bytes of z's shape. False, and
// nothing done, where z or out is not aligned.
bool call(Batch& b, int kind, nb::handle z, nb::handle out, int axis, nb::handle t,
          nb::handle where) {
  const Op op = b.op;
  const View zv(z, PyBUF_STRIDES);
  const View ov(out, op == Op::loss ? PyBUF_STRIDES : PyBUF_STRIDES | PyBUF_WRITABLE);
  const Py_buffer &zb = zv.buffer, &ob = ov.buffer;
  check_kernel_fits(kind, zb, axis);
  if (ob.itemsize != kItem[kind] || zb.ndim != ob.ndim)
    throw std::invalid_argument("arrays do not fit the kernel");
  if (!aligned(zb) || !aligned(ob)) return false;
  b.kind = Kind(kind);
  b.out = ov.data(), b.out_step = ob.strides[axis];
  const Described described(b, zb, &ob, axis, t, where);
  if (b.rows == 0) return true;
  if (b.k == 0) {
    if (op != Op::logsumexp) return true;
    b.k = 1;  // logsumexp of nothing is that of one excluded entry
    static const double nothing = -1.0 / 0.0;
    static const float nothing_f = -1.0f / 0.0f;
    static const uint16_t nothing_h = 0xfc00, nothing_b = 0xff80;
    const void* entry[] = {&nothing_f, &nothing, &nothing_h, &nothing_b};
    b.z = static_cast<const char*>(entry[kind]);
    b.where = nullptr;
    for (int d = 0; d < b.dims; ++d) b.z_stride[d] = 0;
  }
  // Written past the caches where the result would only push out what is in them.
  const int64_t bytes = b.rows * b.k * kItem[kind];
  b.stream = bytes > (int64_t(1) << 24) && b.k * kItem[kind] <= 3 << 18;
  run(b);
  return true;
}

bool call(Op op, int kind, nb::handle z, nb::handle out, int axis, nb::handle t, nb::handle where) {
  Batch b;
  b.op = op;
  return call(b, kind, z, out, axis, t, where);
}

// Memory in C order: an array, or the address of one that has been looked at.
class Memory {
 public:
  Memory(nb::handle array, int64_t bytes, bool written = false) {
    if (array.is_none()) return;
    if (PyLong_Check(array.ptr())) {
      data = PyLong_AsVoidPtr(array.ptr());
      return;
    }
    view_.emplace(array, PyBUF_ND | (written ? PyBUF_WRITABLE : 0));
    if (view_->buffer.len != bytes) throw std::invalid_argument("arrays do not fit the kernel");
    data = view_->data();
  }
  void* data = nullptr;

 private:
  std::optional<View> view_;
};

// Losses of labels below k (the caller has looked), or of distributions of shape (rows, k), in the
// type that the kernel works in; without a gradient where out is None.
void call_losses(int kind, nb::handle z, nb::handle out, int axis, nb::handle t, nb::handle where,
                 nb::handle label, nb::handle targets, double smoothing, PerRow<const double> scale,
                 PerRow<double> loss) {
  const bool gradient = !out.is_none();
  const int64_t rows = int64_t(loss.size()), item = kind == kFloat64 ? 8 : 4;
  const View zv(z, PyBUF_STRIDES);
  const int64_t entries = zv.buffer.len / zv.buffer.itemsize;
  const Memory labels(label, rows * 8), distributions(targets, entries * item);
  Batch b;
  b.op = gradient ? Op::loss_and_gradient : Op::loss;
  b.label = static_cast<const int64_t*>(labels.data);
  b.targets = distributions.data, b.smoothing = smoothing;
  b.scale = scale.data(), b.loss = loss.data();
  call(b, kind, z, gradient ? out : z, axis, t, where);
}

struct MomentsTasks {
  Kind kind;
  const void* z;
  const int64_t* y;
  int64_t k, rows, step;
  double t;
  double* out;
};

void moments_task(const void* context, int64_t i) {
  const MomentsTasks& a = *static_cast<const MomentsTasks*>(context);
  variant.moments(a.kind, a.z, a.y, a.k, a.t, a.out, i * a.step,
                  std::min(a.rows, (i + 1) * a.step));
}

// z of shape (n, k), y int64 of n labels in range, out of shape (n, 4); all in C order.
void call_moments(int kind, nb::handle z, nb::handle y, double t, nb::handle out) {
  const View zv(z, PyBUF_ND), yv(y, PyBUF_ND), ov(out, PyBUF_ND | PyBUF_WRITABLE);
  const Py_buffer &zb = zv.buffer, &yb = yv.buffer, &ob = ov.buffer;
  if (kind < 0 || kind > 1 || zb.itemsize != kItem[kind] || zb.ndim != 2 || yb.ndim != 1 ||
      ob.ndim != 2 || yb.itemsize != 8 || ob.itemsize != 8 || yb.shape[0] != zb.shape[0] ||
      ob.shape[0] != zb.shape[0] || ob.shape[1] != 4 || zb.shape[1] == 0)
    throw std::invalid_argument("arrays do not fit the kernel");
  const int64_t n = zb.shape[0], k = zb.shape[1];
  const int64_t step = std::max<int64_t>(1, (1 << 14) / k);
  const MomentsTasks tasks{Kind(kind), zv.data(), reinterpret_cast<const int64_t*>(yv.data()), k, n,
                           step,       t,         reinterpret_cast<double*>(ov.data())};
  const nb::gil_scoped_release release;
  parallel((n + step - 1) / step, n * k < (1 << 14) ? 1 : threads_worth(n * k), moments_task,
           &tasks);
}

// Memory of shape (n, k, inner); of a Jacobian, which has no inner axis, out has shape (n, k, k)
// and v is p. The slope is one for all, or doubles of shape (n, inner). Where p is None it is the
// softmax of z at temperature t, and inner is 1.
void call_products(int product, int kind, int64_t n, int64_t k, int64_t inner, nb::handle p,
                   nb::handle v, nb::handle z, nb::handle out, nb::handle slope, double t) {
  const bool matrix = product == 2, found = !p.is_none();
  if (kind < 0 || kind > 1 || (inner != 1 && (inner < kLeastColumns || matrix || !found)) ||
      (!found && (matrix || z.is_none())))
    throw std::invalid_argument("arrays do not fit the kernel");
  const int64_t work = n * k * (matrix ? k : inner);
  if (work == 0) return;
  const int64_t bytes = n * k * inner * kItem[kind];
  const Memory pm(p, bytes), vm(v, bytes), zm(z, bytes), om(out, work * kItem[kind], true);
  std::vector<double> slopes;
  std::optional<Memory> given;
  if (PyFloat_Check(slope.ptr()))
    slopes.assign(size_t(n * inner), PyFloat_AS_DOUBLE(slope.ptr()));
  else
    given.emplace(slope, n * inner * 8);
  const ProductArgs args{Product(product),
                         Kind(kind),
                         pm.data,
                         vm.data,
                         zm.data,
                         t,
                         om.data,
                         given ? static_cast<const double*>(given->data) : slopes.data(),
                         n,
                         k,
                         inner,
                         work < (1 << 14) ? 1 : threads_worth(work)};
  const nb::gil_scoped_release release;
  variant.products(args);
}

}  // namespace
}  // namespace logitlab

NB_MODULE(_native, m) {
  using namespace logitlab;
  m.attr("isa") = variant.name;
  define_sampling(m);
  m.attr("MAX_THREADS") = kMaxThreads;
  m.def("get_num_threads", get_num_threads);
  m.def("set_num_threads", set_num_threads);
  m.def("empty", [](size_t bytes) {
    void* data = take(bytes);
    return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(
        data, {bytes}, nb::capsule(data, [](void* p) noexcept { give_back(p); }));
  });
  const auto define = [&m](const char* name, auto function) {
    m.def(name, function, nb::arg("kind"), nb::arg("z"), nb::arg("out"), nb::arg("axis"),
          nb::arg("t"), nb::arg("where").none());
  };
  using nb::handle;
  define("softmax", [](int kind, handle z, handle out, int axis, handle t, handle where) {
    return call(Op::softmax, kind, z, out, axis, t, where);
  });
  define("log_softmax", [](int kind, handle z, handle out, int axis, handle t, handle where) {
    return call(Op::log_softmax, kind, z, out, axis, t, where);
  });
  m.def("cross_entropy", call_losses, nb::arg("kind"), nb::arg("z"), nb::arg("out").none(),
        nb::arg("axis"), nb::arg("t"), nb::arg("where").none(), nb::arg("label").none(),
        nb::arg("targets").none(), nb::arg("smoothing"), nb::arg("scale"), nb::arg("loss"));
  define("logsumexp", [](int kind, handle z, handle out, int axis, handle t, handle where) {
    return call(Op::logsumexp, kind, z, out, axis, t, where);
  });
  m.def("products", call_products, nb::arg("product"), nb::arg("kind"), nb::arg("n"), nb::arg("k"),
        nb::arg("inner"), nb::arg("p").none(), nb::arg("v"), nb::arg("z").none(), nb::arg("out"),
        nb::arg("slope"), nb::arg("t") = 1.0);
  m.def("moments", call_moments, nb::arg("kind"), nb::arg("z"), nb::arg("y"), nb::arg("t"),
        nb::arg("out"));
}
