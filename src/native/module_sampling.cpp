// Sampling and truncation for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "interpreter.h"
#include "py_buffer.h"
#include "sample_args.h"
#include "threads.h"

// The parameters that functions share in their signatures.
#define STAGES                                                  \
  "stages: collections.abc.Sequence[tuple[int, *tuple[float | " \
  "numpy.typing.NDArray[numpy.float64], ...]]]"
#define TRUNCATION_PARAMETERS                                   \
  "kind: int, z: numpy.typing.NDArray[typing.Any], axis: int, " \
  "t: float | numpy.typing.NDArray[numpy.float64], "            \
  "where: numpy.typing.NDArray[typing.Any] | None, " STAGES

namespace logitlab {
namespace {

void run(SampleArgs& args) {
  constexpr int64_t kMinWork = 1 << 12;  // entries and samples per task
  Batch& batch = args.batch;
  int threads = get_num_threads();
  if (batch.rows < threads && batch.k / threads >= 2 * kMinWork)
    batch.row_threads = std::exchange(threads, 1);
  const int64_t work = batch.k + args.n;
  const int64_t step = std::max<int64_t>(
      {1, kMinWork / work, std::min(batch.rows / (threads * 8), kTaskEntries / work)});
  const LockRelease release;
  parallel_ranges(batch.rows, step, threads,
                  [&](int64_t first, int64_t last) { kernels.sample(args, first, last); });
}

// The stages of a call, tuples of their number and their parameters. It holds the arrays of those
// that have one number for each row.
class TruncationArgs {
 public:
  TruncationArgs(Truncation& truncation, const Batch& batch, const std::vector<nb::tuple>& stages) {
    // The classes that a truncation keeps are numbered with 32 bits.
    require(stages.empty() || batch.k < int64_t(1) << 32, "z", batch.k,
            "have fewer than 2^32 classes");
    require(stages.size() <= kMaxStages, "stages", int64_t(stages.size()), "have at most ",
            kMaxStages, " entries");
    for (const nb::tuple& given : stages) {
      require(given.size() >= 1 && given.size() <= 3, "stages", int64_t(given.size()),
              "have entries of 1 to 3 values");
      const int stage = nb::cast<int>(given[0]);
      require(stage >= 0 && stage < kMaxStages, "stages", stage, "be >= 0 and < ", kMaxStages);
      StageArgs& args = truncation.stages[truncation.count++];
      args.stage = Stage(stage);
      set(args.parameter, given, 1, batch.rows);
      set(args.exponent, given, 2, batch.rows);
      for (int64_t row = 0; row < (args.parameter.values ? batch.rows : 1); ++row)
        check(args.stage, value_of_row(args.parameter, row));
    }
  }

 private:
  void set(Parameter& parameter, const nb::tuple& given, size_t i, int64_t rows) {
    if (i >= given.size()) return;
    if (PyFloat_Check(nb::handle(given[i]).ptr())) {
      parameter.value = nb::cast<double>(given[i]);
      return;
    }
    views_.emplace_back("stages", given[i], kDoubles, PyBUF_C_CONTIGUOUS);
    require_size("stages", "bytes per parameter", rows * 8, views_.back().buffer.len);
    require_aligned("stages", views_.back().buffer);
    parameter.values = reinterpret_cast<const double*>(views_.back().data());
  }

  // What the kernels rely on.
  static void check(Stage stage, double x) {
    if (!(x >= 0)) throw std::invalid_argument("stages must have parameters >= 0");
    if (stage == Stage::top_k && !(x >= 1)) throw std::invalid_argument("top_k must be >= 1");
    if (stage == Stage::top_p && !(x > 0 && x <= 1))
      throw std::invalid_argument("top_p must be in (0, 1]");
    if (stage == Stage::min_p && x > 1) throw std::invalid_argument("min_p must be in [0, 1]");
  }

  std::deque<View> views_;
};

// Writes to `kept`, bytes of the shape (rows, k), which entries the truncation keeps.
void keep(int kind, nb::handle z, int axis, nb::handle t, nb::handle where,
          const std::vector<nb::tuple>& stages, nb::handle kept, nb::handle used_temperatures) {
  const View zv("z", z, type_of(kind), PyBUF_STRIDES),
      kept_view("kept", kept, kMask, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
  check_axis(zv.buffer, axis);
  require_aligned("z", zv.buffer);
  SampleArgs args;
  args.batch.kind = Kind(kind);
  const BatchLayout layout(args.batch, zv.buffer, nullptr, axis, t, where);
  const TruncationArgs truncation(args.truncation, args.batch, stages);
  require_size("kept", "bytes", args.batch.rows * args.batch.k, kept_view.buffer.len);
  args.kept = reinterpret_cast<uint8_t*>(kept_view.data());
  std::optional<View> temperatures;
  if (!used_temperatures.is_none()) {
    temperatures.emplace("used_temperatures", used_temperatures, kDoubles,
                         PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
    require_size("used_temperatures", "bytes", args.batch.rows * 8, temperatures->buffer.len);
    args.used_temperatures = reinterpret_cast<double*>(temperatures->data());
  }
  if (kept_view.buffer.len) run(args);
}

// Writes classes to `found`, int64 of shape (rows, n). row_keys is uint64 of shape (rows,), or has
// the uniform numbers, doubles of shape (rows, n).
void sample(int kind, nb::handle z, int axis, nb::handle t, nb::handle where,
            const std::vector<nb::tuple>& stages, bool replacement, uint32_t key_a, uint32_t key_b,
            nb::handle row_keys, nb::handle found) {
  const View zv("z", z, type_of(kind), PyBUF_STRIDES),
      found_view("found", found, kLabels, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
  check_axis(zv.buffer, axis);
  require_aligned("z", zv.buffer);
  SampleArgs args;
  args.batch.kind = Kind(kind);
  const BatchLayout layout(args.batch, zv.buffer, nullptr, axis, t, where);
  const TruncationArgs truncation(args.truncation, args.batch, stages);
  const int64_t rows = args.batch.rows;
  require_size("found", "dimensions", 2, found_view.buffer.ndim);
  require_size("found", "rows", rows, found_view.buffer.shape[0]);
  args.n = found_view.buffer.shape[1];
  const bool given_uniforms = nb::cast<int>(row_keys.attr("ndim")) == 2;
  const View keys_view("row_keys", row_keys, given_uniforms ? kDoubles : kKeys, PyBUF_C_CONTIGUOUS);
  require_size("row_keys", "bytes", rows * 8 * (given_uniforms ? args.n : 1), keys_view.buffer.len);
  args.replacement = replacement;
  args.key[0] = key_a, args.key[1] = key_b;
  if (given_uniforms)
    args.uniforms = reinterpret_cast<const double*>(keys_view.data());
  else
    args.row_keys = reinterpret_cast<const uint64_t*>(keys_view.data());
  args.found = reinterpret_cast<int64_t*>(found_view.data());
  if (rows && args.n && args.batch.k) run(args);
}

// The class axis of a call that plain_sample computes; -1 for any other.
int plain_axis(nb::handle z, nb::handle axis, nb::handle temperature) {
  if (!PyArray_CheckExact(z.ptr()) || !PyLong_CheckExact(axis.ptr()) ||
      !PyFloat_CheckExact(temperature.ptr()))
    return -1;
  auto* logits = reinterpret_cast<PyArrayObject*>(z.ptr());
  const int dims = PyArray_NDIM(logits);
  int overflow;
  const long at = PyLong_AsLongAndOverflow(axis.ptr(), &overflow);
  const double t = PyFloat_AsDouble(temperature.ptr());
  const bool is_plain = plain_kind(logits) && dims <= kMaxDims && !overflow && at >= -dims &&
                        at < dims && t == t && PyArray_SIZE(logits) != 0;
  return !is_plain ? -1 : int(at < 0 ? at + dims : at);
}

// One class for each row, keyed by their numbers and by key_of(rng), of an aligned NumPy array
// below kLargeResult; None where another function must be called: before key_of is called for any
// other array, an axis that is not within its bounds and a temperature that is NaN or not a float,
// and after that if a row has no class to sample.
nb::object plain_sample(nb::handle z, nb::handle axis, nb::handle temperature,
                        const std::vector<nb::tuple>& stages, nb::handle key_of, nb::handle rng) {
  if (plain_axis(z, axis, temperature) < 0) return nb::none();
  const auto [key_a, key_b] = nb::cast<std::pair<uint32_t, uint32_t>>(key_of(rng));
  const int at = plain_axis(z, axis, temperature);  // the generator may have changed the array
  if (at < 0) return nb::none();
  auto* logits = reinterpret_cast<PyArrayObject*>(z.ptr());
  const int dims = PyArray_NDIM(logits);
  npy_intp shape[kMaxDims];
  std::copy_n(PyArray_DIMS(logits), at, shape);
  std::copy(PyArray_DIMS(logits) + at + 1, PyArray_DIMS(logits) + dims, shape + at);
  PyObject* result = PyArray_SimpleNew(dims - 1, shape, NPY_INT64);
  if (!result) throw nb::python_error();
  nb::object owner = nb::steal(result);
  auto* found = reinterpret_cast<PyArrayObject*>(result);
  SampleArgs args;
  args.batch.kind = *plain_kind(logits);
  const Py_buffer buffer = buffer_of(logits);
  const BatchLayout layout(args.batch, buffer, nullptr, at, temperature, nb::none());
  const TruncationArgs truncation(args.truncation, args.batch, stages);
  std::vector<uint64_t> row_keys(size_t(args.batch.rows));
  std::iota(row_keys.begin(), row_keys.end(), uint64_t(0));
  args.n = 1;
  args.key[0] = key_a, args.key[1] = key_b;
  args.row_keys = row_keys.data();
  args.found = static_cast<int64_t*>(PyArray_DATA(found));
  run(args);
  if (std::any_of(args.found, args.found + args.batch.rows, [](int64_t i) { return i < 0; }))
    return nb::none();
  return nb::steal(PyArray_Return(reinterpret_cast<PyArrayObject*>(owner.release().ptr())));
}

}  // namespace

// All arrays but z, t and `where` are contiguous; z is aligned.
void define_sampling(nb::module_& m) {
  m.def("keep", keep, nb::arg("kind"), nb::arg("z"), nb::arg("axis"), nb::arg("t"),
        nb::arg("where").none(), nb::arg("stages"), nb::arg("kept"),
        nb::arg("used_temperatures").none(),
        nb::sig("def keep(" TRUNCATION_PARAMETERS ", kept: numpy.typing.NDArray[typing.Any], "
                "used_temperatures: numpy.typing.NDArray[numpy.float64] | None) -> None"));
  m.def("plain_sample", plain_sample, nb::arg("z").none(), nb::arg("axis").none(),
        nb::arg("temperature").none(), nb::arg("stages"), nb::arg("key_of"), nb::arg("rng").none(),
        nb::sig("def plain_sample(z: typing.Any, axis: typing.Any, temperature: typing.Any, " STAGES
                ", key_of: collections.abc.Callable[[typing.Any], tuple[int, int]], "
                "rng: typing.Any) -> typing.Any"));
  m.def("sample", sample, nb::arg("kind"), nb::arg("z"), nb::arg("axis"), nb::arg("t"),
        nb::arg("where").none(), nb::arg("stages"), nb::arg("replacement"), nb::arg("key_a"),
        nb::arg("key_b"), nb::arg("row_keys"), nb::arg("found"),
        nb::sig("def sample(" TRUNCATION_PARAMETERS ", replacement: bool, key_a: int, key_b: int, "
                "row_keys: numpy.typing.NDArray[typing.Any], "
                "found: numpy.typing.NDArray[numpy.int64]) -> None"));
}

}  // namespace logitlab
