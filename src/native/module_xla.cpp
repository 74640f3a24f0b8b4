// The functions of rows as handlers for XLA, which JAX calls on the CPU, also in compiled programs.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "memory.h"
#include "py_buffer.h"
#include "threads.h"
#include "xla_ffi.h"

namespace logitlab {
namespace {

using namespace xla;

template <class Struct>
void require_struct(const Struct& s, size_t size) {
  if (s.struct_size < size) throw std::invalid_argument("this version of XLA is not supported");
}

const Buffer& buffer(const Buffers& buffers, int64_t i) {
  require_struct(buffers, sizeof(Buffers));
  require(i < buffers.size && buffers.types[i] == kBufferArgument, "arguments", buffers.size,
          "have an array at ", i);
  const auto& b = *static_cast<const Buffer*>(buffers.items[i]);
  require_struct(b, sizeof(Buffer));
  return b;
}

int64_t size_of(const Buffer& b) {
  return std::accumulate(b.shape, b.shape + b.rank, int64_t(1), std::multiplies<>());
}

// int64 or float64.
template <class T>
T attribute(const Attributes& attributes, const char* name) {
  constexpr int type = std::is_same_v<T, double> ? kF64 : kS64;
  require_struct(attributes, sizeof(Attributes));
  for (int64_t i = 0; i < attributes.size; ++i) {
    const Name& found = *attributes.names[i];
    if (found.size != std::strlen(name) || std::memcmp(found.text, name, found.size)) continue;
    const auto* scalar = static_cast<const Scalar*>(attributes.items[i]);
    if (attributes.types[i] == kScalarAttribute && scalar->type == type)
      return *static_cast<const T*>(scalar->value);
  }
  throw std::invalid_argument(std::string(name) + " must be an int64 or float64 attribute");
}

Kind kind_of(const Buffer& b) {
  switch (b.type) {
    case kF32:
      return kFloat32;
    case kF64:
      return kFloat64;
    case kF16:
      return kFloat16;
    case kBF16:
      return kBFloat16;
    default:
      throw std::invalid_argument("z must be floating");
  }
}

// Numbers of the rows.
template <class T>
class Column {
 public:
  explicit Column(int64_t size) : large_(size * int64_t(sizeof(T)) >= kLarge) {
    const size_t bytes = size_t(size) * sizeof(T);
    data = static_cast<T*>(large_ ? allocate_result(bytes) : allocate_workspace(bytes));
  }
  ~Column() { large_ ? free_result(data) : free_workspace(data); }
  Column(const Column&) = delete;
  T* data;

 private:
  static constexpr int64_t kLarge = 1 << 17;  // bytes from which new pages would be needed
  const bool large_;
};

// The rows of z along the class axis, which is counted from the last one.
Batch batch_of(Op op, const CallFrame& call, const Buffer& z, const Buffer& out) {
  const auto axis = attribute<int64_t>(call.attributes, "axis");
  require(axis < 0 && axis >= -z.rank, "axis", axis, "be < 0 and >= ", -z.rank);
  Batch b;
  b.op = op, b.kind = kind_of(z);
  b.temperature = attribute<double>(call.attributes, "temperature");
  b.z = static_cast<const char*>(z.data), b.out = static_cast<char*>(out.data);
  const auto length = [&](int64_t first, int64_t last) {
    return std::accumulate(z.shape + first, z.shape + last, int64_t(1), std::multiplies<>());
  };
  const int64_t class_axis = z.rank + axis, n = length(0, class_axis),
                inner = length(class_axis + 1, z.rank), item = kTypes[b.kind].size;
  b.k = z.shape[class_axis], b.rows = n * inner, b.dims = 0;
  const int64_t width = op == Op::logsumexp ? 1 : b.k;
  require(out.type == z.type && size_of(out) == b.rows * width, "the result", size_of(out),
          "have the type of z and ", b.rows * width, " entries");
  b.z_step = b.out_step = inner * item;
  add_axis(b, n, b.k * inner * item, width * inner * item, 0, 0);
  add_axis(b, inner, item, item, 0, 0);
  return b;
}

void compute_rows(const CallFrame& call) {
  const Op op = Op(attribute<int64_t>(call.attributes, "function"));
  require(op == Op::softmax || op == Op::log_softmax || op == Op::logsumexp, "function",
          int64_t(op), "be 0, 1 or 2");
  Batch b = batch_of(op, call, buffer(call.arguments, 0), buffer(call.results, 0));
  if (b.rows > 0 && b.k > 0) run_batch(b);
}

// The loss of each row's label and, as a second result, p - y. Rows of other labels are ignored.
void compute_losses(const CallFrame& call) {
  const Buffer &z = buffer(call.arguments, 0), &y = buffer(call.arguments, 1),
               &loss = buffer(call.results, 0);
  const bool with_residual = call.results.size > 1;
  Batch b = batch_of(with_residual ? Op::loss_and_gradient : Op::loss, call, z,
                     with_residual ? buffer(call.results, 1) : z);
  require(y.type == kS32 || y.type == kS64, "y", y.type, "have type int32 or int64");
  require(loss.type == kF32 || loss.type == kF64, "loss", loss.type, "be float32 or float64");
  require_size("y", "labels", b.rows, size_of(y));
  require_size("loss", "entries", b.rows, size_of(loss));
  if (b.rows == 0 || b.k == 0) return;
  const Column<int64_t> labels(b.rows);
  const Column<double> losses(b.rows), ones(with_residual ? b.rows : 0);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t label = y.type == kS32 ? static_cast<const int32_t*>(y.data)[i]
                                         : static_cast<const int64_t*>(y.data)[i];
    labels.data[i] = label >= 0 && label < b.k ? label : -1;
  }
  std::fill_n(ones.data, with_residual ? b.rows : 0, 1.0);
  b.label = labels.data, b.smoothing = attribute<double>(call.attributes, "smoothing");
  b.gradient_scale = ones.data, b.loss = losses.data;
  run_batch(b);
  if (loss.type == kF32)
    std::copy_n(losses.data, b.rows, static_cast<float*>(loss.data));
  else
    std::copy_n(losses.data, b.rows, static_cast<double*>(loss.data));
}

// The product of the vectors v, of the shape of z, with the derivative of softmax or log_softmax at
// z, 0 at T = 0; the class axis is the last.
void compute_products(const CallFrame& call) {
  const Buffer &z = buffer(call.arguments, 0), &v = buffer(call.arguments, 1),
               &out = buffer(call.results, 0);
  const auto product = Product(attribute<int64_t>(call.attributes, "function"));
  require(product == Product::softmax || product == Product::log_softmax, "function",
          int64_t(product), "be 0 or 1");
  const double t = attribute<double>(call.attributes, "temperature");
  const Kind kind = kind_of(z);
  require(kind == kFloat32 || kind == kFloat64, "kind", kind, "be 0 or 1");
  const int64_t size = size_of(z), k = z.rank ? z.shape[z.rank - 1] : 0;
  require(v.type == z.type && out.type == z.type, "v", v.type, "have the type of z");
  require_size("v", "entries", size, size_of(v));
  require_size("out", "entries", size, size_of(out));
  if (size == 0) return;
  const Column<double> slopes(size / k);
  std::fill_n(slopes.data, size / k, t == 0 ? 0 : 1 / t);
  const ProductArgs args{product,  kind, nullptr,  v.data,
                         z.data,   t,    out.data, slopes.data,
                         size / k, k,    1,        size < (1 << 14) ? 1 : threads_for(size)};
  kernels.products(args);
}

// Tells XLA the version that it has itself, if it is compatible. Where it does not say which, it is
// 0.1.
void describe(const CallFrame& call, const Extension& extension) {
  require_struct(extension, sizeof(MetadataExtension));
  Metadata& metadata = *reinterpret_cast<const MetadataExtension&>(extension).metadata;
  require_struct(metadata, offsetof(Metadata, traits) + sizeof metadata.traits);
  const int minor = call.api ? call.api->version.minor_version : 1;
  metadata.version = {sizeof(ApiVersion), nullptr, 0, minor};
  metadata.traits = 0;
}

template <void compute(const CallFrame&)>
Error* handle(CallFrame* call) noexcept {
  const auto fail = [&](int code, const char* message) -> Error* {
    if (!call->api) return nullptr;  // XLA refuses a handler that has told no version
    ErrorArgs error{sizeof(ErrorArgs), nullptr, message, code};
    return call->api->create_error(&error);
  };
  try {
    require_struct(*call, sizeof(CallFrame));
    for (const Extension* e = call->extensions; e; e = e->next) {
      if (e->type != kMetadataExtension) continue;
      describe(*call, *e);
      return nullptr;
    }
    require(call->stage == kExecute, "stage", call->stage, "be ", kExecute);
    // Without the lock of the interpreter, whose signal handlers may raise.
    const SignalsDeferred deferred;
    // As a task, whose floating-point mode has subnormal numbers; that of XLA replaces them by 0.
    parallel_ranges(1, 1, 1, [&](int64_t, int64_t) { compute(*call); });
    return nullptr;
  } catch (const std::bad_alloc& e) {
    return fail(kResourceExhausted, e.what());
  } catch (const std::invalid_argument& e) {
    return fail(kInvalidArgument, e.what());
  } catch (const std::exception& e) {
    return fail(kInternal, e.what());
  }
}

template <void compute(const CallFrame&)>
nb::capsule capsule() {
  Error* (*handler)(CallFrame*) = handle<compute>;
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

void define_xla(nb::module_& m) {
  m.def(
      "xla_rows", [] { return capsule<compute_rows>(); }, nb::sig("def xla_rows() -> typing.Any"));
  m.def(
      "xla_products", [] { return capsule<compute_products>(); },
      nb::sig("def xla_products() -> typing.Any"));
  m.def(
      "xla_losses", [] { return capsule<compute_losses>(); },
      nb::sig("def xla_losses() -> typing.Any"));
}

}  // namespace logitlab
