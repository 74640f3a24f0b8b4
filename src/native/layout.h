// The positions of the rows of a batch, and copies of rows to contiguous memory and back.
#pragma once

#include "algorithms.h"
#include "batch.h"
#include "convert_lanes.h"
#include "half.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The positions of a row's first entries in the arrays, in bytes.
struct Offsets {
  int64_t z = 0, out = 0, where = 0, temperature = 0;
};

// Iterates over the rows of a batch.
class RowIterator {
 public:
  RowIterator(const Batch& batch, int64_t row) : batch_(batch) {
    for (int d = batch.dims - 1; d >= 0; --d) {
      index_[d] = row % batch.shape[d];
      row /= batch.shape[d];
      move(d, index_[d]);
    }
  }
  const Offsets& offsets() const { return offsets_; }
  bool has_temperatures() const { return batch_.temperatures; }
  // T of the row.
  double temperature() const {
    double t = batch_.temperature;
    if (batch_.temperatures)  // which need not be aligned
      std::memcpy(&t, batch_.temperatures + offsets_.temperature, sizeof t);
    return t;
  }
  // How many rows follow at equal distances, this one included, and the distance.
  int64_t even_rows() const {
    const int d = batch_.dims - 1;
    return d < 0 ? 1 : batch_.shape[d] - index_[d];
  }
  Offsets step() const {
    const int d = batch_.dims - 1;
    if (d < 0) return {};
    return {batch_.z_stride[d], batch_.out_stride[d], batch_.where_stride[d],
            batch_.temperature_stride[d]};
  }
  // n rows on, of which all but the last are even rows.
  void skip(int64_t n) {
    const int d = batch_.dims - 1;
    if (n > 1) move(d, n - 1), index_[d] += n - 1;
    next();
  }
  void next() {
    for (int d = batch_.dims - 1; d >= 0; --d) {
      move(d, 1);
      if (++index_[d] < batch_.shape[d]) return;
      move(d, -index_[d]);
      index_[d] = 0;
    }
  }

 private:
  void move(int d, int64_t n) {
    offsets_.z += n * batch_.z_stride[d];
    offsets_.out += n * batch_.out_stride[d];
    offsets_.where += n * batch_.where_stride[d];
    offsets_.temperature += n * batch_.temperature_stride[d];
  }
  const Batch& batch_;
  int64_t index_[kMaxDims];
  Offsets offsets_;
};

// Up to sixteen rows that are computed together.
struct RowBlock {
  int size;
  bool negative;  // whether T < 0 in some of them
  Offsets offsets[kLanes];
  double temperature[kLanes];

  void take(RowIterator& rows, int n) {
    size = n, negative = false;
    if (!rows.has_temperatures() && rows.even_rows() >= n) {
      const Offsets first = rows.offsets(), step = rows.step();
      for (int r = 0; r < n; ++r) {
        offsets[r] = {first.z + r * step.z, first.out + r * step.out, first.where + r * step.where,
                      0};
        temperature[r] = rows.temperature();
      }
      negative = temperature[0] < 0;
      return rows.skip(n);
    }
    for (int r = 0; r < n; ++r, rows.next()) {
      offsets[r] = rows.offsets();
      temperature[r] = rows.temperature();
      negative = negative || temperature[r] < 0;
    }
  }
  // Whether each row begins `item` bytes after the one before it.
  bool adjacent(int64_t Offsets::* array, int64_t item) const {
    for (int r = 1; r < size; ++r)
      if (offsets[r].*array - offsets[r - 1].*array != item) return false;
    return true;
  }
};

// Entries [first, first + n) of a row, as T, with excluded entries at -inf; `negate` where T < 0.
// Each step is a loop of its own, which the compiler makes vector code of.
template <class S, class T>
void load_part(const Batch& batch, const Offsets& offsets, bool negate, int64_t first, int64_t n,
               T* row) {
  constexpr T inf = kInfinity<T>;
  const char* from = batch.z + offsets.z + first * batch.z_step;
  if (batch.z_step == sizeof(S))
    widen_all(reinterpret_cast<const S*>(from), row, n);
  else
    for (int64_t i = 0; i < n; ++i)
      row[i] = widened(*reinterpret_cast<const S*>(from + i * batch.z_step));
  if (negate)
    for (int64_t i = 0; i < n; ++i) row[i] = row[i] == -inf ? row[i] : -row[i];
  if (!batch.where) return;
  const char* where = batch.where + offsets.where + first * batch.where_step;
  if (batch.where_step == 1)
    for (int64_t i = 0; i < n; ++i) row[i] = where[i] ? row[i] : -inf;
  else
    for (int64_t i = 0; i < n; ++i) row[i] = where[i * batch.where_step] ? row[i] : -inf;
}

// Copies a row to `row`.
template <class S, class T>
void load_row(const Batch& batch, const Offsets& offsets, bool negate, T* row) {
  constexpr int64_t part = 2048;  // entries that stay in the first-level cache
  for (int64_t i = 0; i < batch.k; i += part)
    load_part<S>(batch, offsets, negate, i, min(part, batch.k - i), row + i);
}

// Copies the rows of a block one after another.
template <class S, class T>
void load_rows(const Batch& batch, const RowBlock& block, T* rows) {
  // As one row where they follow one another.
  if (!block.negative && batch.z_step == sizeof(S) &&
      block.adjacent(&Offsets::z, batch.k * int64_t(sizeof(S))) &&
      (!batch.where || (batch.where_step == 1 && block.adjacent(&Offsets::where, batch.k))))
    return load_part<S>(batch, block.offsets[0], false, 0, block.size * batch.k, rows);
  for (int r = 0; r < block.size; ++r)
    load_row<S>(batch, block.offsets[r], block.temperature[r] < 0, rows + r * batch.k);
}

template <class S, class T>
void store_row(const Batch& batch, const Offsets& offsets, const T* row) {
  char* to = batch.out + offsets.out;
  if (batch.out_step == sizeof(S)) return narrow_all(row, reinterpret_cast<S*>(to), batch.k);
  for (int64_t i = 0; i < batch.k; ++i)
    narrow_to(row[i], *reinterpret_cast<S*>(to + i * batch.out_step));
}

// Writes T log sum exp(z/T), computed from -z where T < 0.
template <class S, class T>
void store_logsumexp(const Batch& batch, const Offsets& offsets, double t, T value) {
  narrow_to(t < 0 ? -value : value, *reinterpret_cast<S*>(batch.out + offsets.out));
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
