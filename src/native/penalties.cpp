#include "penalties.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "half.h"
#include "threads.h"

namespace logitlab {
namespace {

// The number of a type that is nearest to x; is_tensor: as torch rounds it.
void round_to(double x, bool, double& y) { y = x; }
void round_to(double x, bool, float& y) { y = float(x); }
// As ml_dtypes and torch: by way of float32.
void round_to(double x, bool, BFloat& y) { narrow_to(float(x), y); }
void round_to(double x, bool is_tensor, Half& y) {
  float nearest = float(x);
  // float32 with an odd last bit where it is not exact: the second rounding is then that of x.
  if (const double error = double(nearest) - x;
      !is_tensor && std::isfinite(error) && error != 0 && nearest != 0 && !(bits_of(nearest) & 1))
    nearest = float_of(bits_of(nearest) + ((error > 0) == (nearest > 0) ? -1u : 1u));
  narrow_to(nearest, y);
}

constexpr double kLargest[] = {std::numeric_limits<float>::max(),
                               std::numeric_limits<double>::max(), 65504, 0x1.fep127};

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};
// Numbers for each token, of which few are used: pages that are not written to cost nothing.
template <class T>
using Zeros = std::unique_ptr<T[], FreeMemory>;
template <class T>
Zeros<T> zeros(int64_t size) {
  void* const memory = std::calloc(size_t(size), sizeof(T));
  if (!memory) throw std::bad_alloc();
  return Zeros<T>(static_cast<T*>(memory));
}

// What the lists of a row say of each token. All is zero between two rows.
class TokenCounts {
 public:
  TokenCounts(const PenaltyArgs& args)
      : args_(args),
        counts_(zeros<uint32_t>(args.k)),
        bias_(args.bias ? zeros<double>(args.k) : nullptr),
        dry_(args.dry_penalty ? zeros<double>(args.k) : nullptr) {}

  void add(int64_t row) {
    for_each(args_.prompt, row, [&](int64_t token, int64_t) { counts_[token] = kSeen; });
    for_each(args_.output, row,
             [&](int64_t token, int64_t) { counts_[token] = (counts_[token] | kSeen) + 1; });
    if (bias_)
      for_each(args_.biased, row, [&](int64_t token, int64_t i) {
        counts_[token] |= kListed;
        bias_[token] = args_.bias[i];
      });
    if (dry_)
      for_each(args_.dry, row, [&](int64_t token, int64_t i) {
        counts_[token] |= kListed;
        dry_[token] = std::max(dry_[token], args_.dry_penalty[i]);
      });
  }

  // Calls change(token, is_seen, count, bias, penalty of DRY) once for each token, and forgets it.
  template <class Change>
  void take(int64_t row, const Change& change) {
    const auto take_one = [&](int64_t token, int64_t) {
      const uint32_t state = counts_[token];
      if (!state) return;
      counts_[token] = 0;
      double bias = 0, dry = 0;
      if (state & kListed) {
        if (bias_) bias = std::exchange(bias_[token], 0);
        if (dry_) dry = std::exchange(dry_[token], 0);
      }
      change(token, (state & kSeen) != 0, state & ~(kSeen | kListed), bias, dry);
    };
    for_each(args_.prompt, row, take_one);
    for_each(args_.output, row, take_one);
    if (bias_) for_each(args_.biased, row, take_one);
    if (dry_) for_each(args_.dry, row, take_one);
  }

 private:
  // The lower bits count the token in the output.
  static constexpr uint32_t kSeen = 1u << 31, kListed = 1u << 30;

  template <class Use>
  static void for_each(const TokenLists& lists, int64_t row, const Use& use) {
    for (int64_t i = lists.offsets[row]; i < lists.offsets[row + 1]; ++i) use(lists.tokens[i], i);
  }

  const PenaltyArgs& args_;
  const Zeros<uint32_t> counts_;
  const Zeros<double> bias_, dry_;
};

// A changed logit x: a finite one stays finite; -inf stays -inf, and a bias of -inf excludes.
double limited(double x, double start, double bias, double largest) {
  const double infinity = std::numeric_limits<double>::infinity();
  if (start == -infinity || bias == -infinity) return -infinity;
  if (!std::isfinite(start) || !std::isfinite(bias)) return x;
  return x > largest ? largest : x < -largest ? -largest : x;
}

template <class T>
void widen(const char* from, int64_t size, double* to) {
  const T* const x = reinterpret_cast<const T*>(from);
  for (int64_t i = 0; i < size; ++i) to[i] = widened(x[i]);
}

// The biases of all logits of one row after another, as doubles.
class RowBiases {
 public:
  explicit RowBiases(const PenaltyArgs& args) : args_(args) {}

  // Null without biases.
  const double* of_row(int64_t row) {
    if (!args_.all_biases || (!row_.empty() && !args_.has_bias_rows)) return row_.data();
    row_.resize(size_t(args_.k));
    const int64_t start = args_.has_bias_rows ? row * args_.k : 0;
    const char* const x = args_.all_biases;
    switch (args_.bias_kind) {
      case kFloat32:
        widen<float>(x + 4 * start, args_.k, row_.data());
        break;
      case kFloat64:
        widen<double>(x + 8 * start, args_.k, row_.data());
        break;
      case kFloat16:
        widen<Half>(x + 2 * start, args_.k, row_.data());
        break;
      case kBFloat16:
        widen<BFloat>(x + 2 * start, args_.k, row_.data());
        break;
    }
    return row_.data();
  }

 private:
  const PenaltyArgs& args_;
  std::vector<double> row_;
};

// z with a bias of each logit.
template <class T>
void add_biases(const PenaltyArgs& args, const T* z, const double* bias, T* out) {
  constexpr int64_t kBlock = 64;
  const double largest = kLargest[args.kind];
  double x[kBlock];
  for (int64_t start = 0; start < args.k; start += kBlock) {
    const int64_t size = std::min(kBlock, args.k - start);
    int64_t beyond = 0;
    for (int64_t i = 0; i < size; ++i) {
      x[i] = widened(z[start + i]) + bias[start + i];
      beyond += !(std::fabs(x[i]) <= largest);
    }
    for (int64_t i = 0; beyond && i < size; ++i)
      x[i] = limited(x[i], widened(z[start + i]), bias[start + i], largest);
    for (int64_t i = 0; i < size; ++i) round_to(x[i], args.is_tensor, out[start + i]);
  }
}

template <class T>
void penalize(const PenaltyArgs& args, int64_t first, int64_t last) {
  TokenCounts counts(args);
  RowBiases biases(args);
  const double largest = kLargest[args.kind];
  for (int64_t row = first; row < last; ++row) {
    const T* const z = reinterpret_cast<const T*>(args.z) + row * args.k;
    T* const out = reinterpret_cast<T*>(args.out) + row * args.k;
    const double* const all_biases = biases.of_row(row);
    if (all_biases)
      add_biases(args, z, all_biases, out);
    else
      std::memcpy(out, z, size_t(args.k) * sizeof(T));
    const double repetition = args.repetition[row], frequency = args.frequency[row],
                 presence = args.presence[row];
    // By [whether the token is in the history][whether the logit is positive].
    const double divisor[2][2] = {{1, 1}, {1, repetition}},
                 factor[2][2] = {{1, 1}, {repetition, 1}};
    counts.add(row);
    counts.take(row, [&](int64_t token, bool is_seen, uint32_t count, double bias, double dry) {
      if (all_biases) bias += all_biases[token];
      const double start = widened(all_biases ? z[token] : out[token]), sum = start + bias;
      double penalty = count * frequency;
      penalty += (count > 0) * presence;
      if (args.dry_penalty) penalty += dry;
      // The signs are random: a division and a product by 1, which are exact, instead of a branch.
      const bool is_positive = sum > 0;
      double x = sum / divisor[is_seen][is_positive] * factor[is_seen][is_positive] - penalty;
      if (!(std::fabs(x) <= largest)) x = limited(x, start, bias, largest);
      round_to(x, args.is_tensor, out[token]);
    });
  }
}

}  // namespace

void penalize_rows(const PenaltyArgs& args, int64_t first, int64_t last) {
  switch (args.kind) {
    case kFloat32:
      return penalize<float>(args, first, last);
    case kFloat64:
      return penalize<double>(args, first, last);
    case kFloat16:
      return penalize<Half>(args, first, last);
    case kBFloat16:
      return penalize<BFloat>(args, first, last);
  }
}

int64_t find_repeats(const TokenLists& history, int64_t rows, const int64_t* least,
                     const int64_t* limit, int64_t* found, int64_t* lengths) {
  int64_t count = 0;
  std::vector<int64_t> common;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t *const begin = history.tokens + history.offsets[row],
                         *const end = history.tokens + history.offsets[row + 1];
    const int64_t size = end - begin;
    // From the end backwards: common[i] tokens are equal from 0 and from i on (the Z-algorithm).
    // The interval [from, to) is the one, of those before i, that ends last.
    const auto token = [&](int64_t i) { return end[-1 - i]; };
    common.resize(size_t(size) + 1);
    common[size_t(size)] = 0;
    for (int64_t i = 1, from = 0, to = 0; i < size; ++i) {
      int64_t n = i < to ? std::min(to - i, common[size_t(i - from)]) : 0;
      while (i + n < size && token(n) == token(i + n)) ++n;
      if (i + n > to) from = i, to = i + n;
      common[size_t(i)] = n;
    }
    for (int64_t i = size; i >= 1; --i) {
      const int64_t n = std::min(common[size_t(i)], limit[row]);
      if (n < least[row]) continue;
      found[count] = end - i - history.tokens;
      lengths[count++] = n;
    }
  }
  return count;
}

}  // namespace logitlab
