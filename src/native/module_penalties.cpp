// Penalties of tokens by their history for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "interpreter.h"
#include "penalties.h"
#include "py_buffer.h"
#include "threads.h"

#define INTS "numpy.typing.NDArray[numpy.int64]"
#define LISTS "tuple[" INTS ", " INTS "]"
#define NUMBERED "tuple[" INTS ", " INTS ", " DOUBLES "] | None"

namespace logitlab {
namespace {

constexpr int64_t kMaxLength = int64_t(1) << 30;  // the kernels count tokens with fewer bits

constexpr int64_t kMaxRows = int64_t(1) << 48;  // their bytes can be computed

// Checked lists of tokens of `rows` rows, given as (tokens, offsets) or, with a number for each
// token, as (tokens, offsets, numbers). It holds the arrays.
class Lists {
 public:
  Lists(const char* argument, const nb::tuple& given, int64_t rows, int64_t k, bool has_numbers)
      : size_(entries(argument, given, has_numbers)),
        tokens_(argument, given[0], kLabels, size_),
        offsets_(argument, given[1], kLabels, rows + 1) {
    lists.tokens = static_cast<const int64_t*>(tokens_.data);
    lists.offsets = static_cast<const int64_t*>(offsets_.data);
    uint64_t invalid = 0;  // its highest bit: whether a token is negative or above k - 1
    for (int64_t i = 0; i < size_; ++i)
      invalid |= uint64_t(lists.tokens[i]) | (uint64_t(k - 1) - uint64_t(lists.tokens[i]));
    for (int64_t i = 0; invalid >> 63 && i < size_; ++i)
      require(lists.tokens[i] >= 0 && lists.tokens[i] < k, argument, lists.tokens[i],
              "have tokens >= 0 and < ", k);
    require(lists.offsets[0] == 0, argument, lists.offsets[0], "have offsets from 0");
    require_size(argument, "tokens", lists.offsets[rows], size_);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t length = lists.offsets[row + 1] - lists.offsets[row];
      require(length >= 0 && length < kMaxLength, argument, length, "have lengths >= 0 and < 2^30");
    }
    if (!has_numbers) return;
    numbers_.emplace(argument, given[2], kDoubles, size_);
    numbers = static_cast<const double*>(numbers_->data);
  }
  int64_t size() const { return size_; }
  TokenLists lists;
  const double* numbers = nullptr;

 private:
  static int64_t entries(const char* argument, const nb::tuple& given, bool has_numbers) {
    require_size(argument, "entries", has_numbers ? 3 : 2, int64_t(given.size()));
    for (const nb::handle array : given)
      if (array.is_none()) throw nb::type_error("lists of tokens must be arrays, got None");
    return int64_t(nb::len(nb::handle(given[0])));
  }
  const int64_t size_;
  const ContiguousMemory tokens_, offsets_;
  std::optional<ContiguousMemory> numbers_;
};

// z and out of shape (rows, k); all_biases (rows, k) or (1, k), or None; the settings (rows,).
void penalize(int kind, int64_t rows, int64_t k, nb::handle z, nb::handle out, bool is_tensor,
              const nb::tuple& prompt, const nb::tuple& tokens,
              const std::optional<nb::tuple>& bias, const std::optional<nb::tuple>& dry,
              nb::handle all_biases, int bias_kind, nb::handle repetition, nb::handle frequency,
              nb::handle presence) {
  require(rows >= 0 && rows < kMaxRows, "rows", rows, "be >= 0 and < 2^48");
  require(k >= 0, "k", k, "be >= 0");
  const NumberType& type = type_of(kind);
  PenaltyArgs args{};
  args.kind = Kind(kind), args.k = k, args.is_tensor = is_tensor;
  const ContiguousMemory z_memory("z", z, type, size_of(rows, k)),
      out_memory("out", out, type, size_of(rows, k), ContiguousMemory::kWritable),
      repetitions("repetition", repetition, kDoubles, rows),
      frequencies("frequency", frequency, kDoubles, rows),
      presences("presence", presence, kDoubles, rows);
  const NumberType& bias_type = type_of(bias_kind);
  args.bias_kind = Kind(bias_kind);
  args.has_bias_rows =
      !all_biases.is_none() && rows > 1 && nb::cast<int64_t>(all_biases.attr("shape")[0]) != 1;
  const ContiguousMemory biases_memory("all_biases", all_biases, bias_type,
                                       size_of(args.has_bias_rows ? rows : 1, k));
  const Lists before("prompt", prompt, rows, k, false), output("tokens", tokens, rows, k, false);
  std::optional<Lists> biases, repeats;
  int64_t entries = rows * k + before.size() + output.size();
  if (bias) {
    biases.emplace("bias", *bias, rows, k, true);
    args.biased = biases->lists, args.bias = biases->numbers;
  }
  if (dry) {
    repeats.emplace("dry", *dry, rows, k, true);
    args.dry = repeats->lists, args.dry_penalty = repeats->numbers;
  }
  if (rows == 0 || k == 0) return;
  args.z = static_cast<const char*>(z_memory.data);
  args.out = static_cast<char*>(out_memory.data);
  args.all_biases = static_cast<const char*>(biases_memory.data);
  args.prompt = before.lists, args.output = output.lists;
  args.repetition = static_cast<const double*>(repetitions.data);
  args.frequency = static_cast<const double*>(frequencies.data);
  args.presence = static_cast<const double*>(presences.data);
  const int threads = threads_for(entries);
  // Each task allocates memory for all tokens.
  const int64_t most =
      std::max<int64_t>(1, 4 * kTaskEntries / std::max<int64_t>(1, entries / rows));
  const LockRelease release;
  parallel_ranges(rows, even_step(rows, threads, most), threads,
                  [&](int64_t first, int64_t last) { penalize_rows(args, first, last); });
}

// Writes to `found` and `lengths`, of as many entries as there are tokens, and returns how many.
int64_t find_repeats_of(const nb::tuple& tokens, int64_t rows, nb::handle least, nb::handle limit,
                        nb::handle found, nb::handle lengths) {
  require(rows >= 0 && rows < kMaxRows, "rows", rows, "be >= 0 and < 2^48");
  const Lists history("tokens", tokens, rows, std::numeric_limits<int64_t>::max(), false);
  const ContiguousMemory leasts("least", least, kLabels, rows),
      limits("limit", limit, kLabels, rows),
      found_memory("found", found, kLabels, history.size(), ContiguousMemory::kWritable),
      length_memory("lengths", lengths, kLabels, history.size(), ContiguousMemory::kWritable);
  const LockRelease release;
  return find_repeats(history.lists, rows, static_cast<const int64_t*>(leasts.data),
                      static_cast<const int64_t*>(limits.data),
                      static_cast<int64_t*>(found_memory.data),
                      static_cast<int64_t*>(length_memory.data));
}

}  // namespace

void define_penalties(nb::module_& m) {
  m.def("penalize", penalize, nb::arg("kind"), nb::arg("rows"), nb::arg("k"), nb::arg("z"),
        nb::arg("out"), nb::arg("is_tensor"), nb::arg("prompt"), nb::arg("tokens"),
        nb::arg("bias").none(), nb::arg("dry").none(), nb::arg("all_biases").none(),
        nb::arg("bias_kind"), nb::arg("repetition"), nb::arg("frequency"), nb::arg("presence"),
        nb::sig("def penalize(kind: int, rows: int, k: int, z: " ARRAY ", out: " ARRAY
                ", is_tensor: bool, prompt: " LISTS ", tokens: " LISTS ", bias: " NUMBERED
                ", dry: " NUMBERED ", all_biases: " ARRAY
                " | None, bias_kind: int, repetition: " DOUBLES ", frequency: " DOUBLES
                ", presence: " DOUBLES ") -> None"));
  m.def("find_repeats", find_repeats_of, nb::arg("tokens"), nb::arg("rows"), nb::arg("least"),
        nb::arg("limit"), nb::arg("found"), nb::arg("lengths"),
        nb::sig("def find_repeats(tokens: " LISTS ", rows: int, least: " INTS ", limit: " INTS
                ", found: " INTS ", lengths: " INTS ") -> int"));
}

}  // namespace logitlab
