// The rows of a batch of more than kMaxSmallRow classes.
#pragma once

#include <type_traits>

#include "column_rows.h"
#include "layout.h"
#include "row_kernel.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class S, class T>
class LargeRowRunner {
  static constexpr bool kSameType = std::is_same_v<S, T>;

 public:
  explicit LargeRowRunner(const Batch& batch)
      : batch_(batch),
        z_in_place_(kSameType && !batch.where && batch.z_step == sizeof(T)),
        out_in_place_(kSameType && batch.out_step == sizeof(T) && batch.op != Op::logsumexp),
        plain_(!batch.where && !batch.temperatures && batch.temperature >= 0),
        batch_beta_(inverse_temperature<T>(std::fabs(batch.temperature))),
        pitch_((batch.k + kLanes - 1) / kLanes * kLanes + kLanes),
        rows_at_once_(chunk_rows_at_once(batch.k)),
        kernel_(batch.op, batch.k) {
    for (int r = 0; r < kLanes; ++r) kernel_.set_temperature(r, batch_beta_);
  }

  void run(int64_t first, int64_t last) {
    thread_local Workspace workspace;
    // As many rows as fit the second-level cache, at most sixteen; rows across the class axis share
    // cache lines.
    const int64_t width =
        clamp<int64_t>((across() ? kAcrossEntries : 1 << 17) / batch_.k, 1, kLanes);
    const int64_t weights = batch_.op != Op::softmax ? kColumnGroup
                            : width > 1              ? pitch_ * rows_at_once_
                                                     : pitch_;
    rows_ = static_cast<T*>(workspace.reserve((pitch_ * width + weights) * sizeof(T) +
                                              chunk_count(batch_.k) * sizeof(ChunkSums<T>)));
    weights_ = rows_ + pitch_ * width;
    chunks_ = reinterpret_cast<ChunkSums<T>*>(weights_ + weights);
    RowIterator rows(batch_, first);
    for (; first < last; first += block_.size) {
      block_.take(rows, int(min(width, last - first)));
      if (!compute_columns()) compute_block();
    }
    workspace.release_above(size_t(1) << 25);
  }

 private:
  // Memory for the weights of a group of classes of sixteen columns.
  static constexpr int64_t kColumnGroup = kGroupSize * kLanes;

  // A row of block_ is read where z is, and its results are written where out is, or in row r of
  // rows_.
  bool z_in_place(int r) const { return z_in_place_ && block_.temperature[r] >= 0; }
  const T* entries(int r) const {
    return z_in_place(r) ? reinterpret_cast<const T*>(batch_.z + block_.offsets[r].z)
                         : rows_ + r * pitch_;
  }
  T* results(int r) const {
    return out_in_place_ ? reinterpret_cast<T*>(batch_.out + block_.offsets[r].out)
                         : rows_ + r * pitch_;
  }

  // Whether the next row is nearer in memory than the next class.
  bool across() const {
    const int64_t next_row = batch_.dims ? batch_.z_stride[batch_.dims - 1] : 0;
    return batch_.dims && absolute(next_row) < absolute(batch_.z_step);
  }

  void compute_block() {
    // Rows across the class axis are copied several classes at a time, in the order of memory.
    const bool across = block_.size > 1 && this->across() && !batch_.where;
    if (across) {
      load_across();
    } else {
      for (int r = 0; r < block_.size; ++r)
        if (!z_in_place(r))
          load_row<S>(batch_, block_.offsets[r], block_.temperature[r] < 0, rows_ + r * pitch_);
    }
    for (int r = 0; r < block_.size;) {
      if (batch_.k <= kChunkSize) {
        const int rows = min(rows_at_once_, block_.size - r);
        compute_rows(r, rows, across);
        r += rows;
      } else {
        T logsumexp;
        compute_row(r, batch_.op == Op::logsumexp ? &logsumexp : results(r));
        store(r++, logsumexp, across);
      }
    }
    if (across && batch_.op != Op::logsumexp && !out_in_place_) store_across();
  }

  // Writes the result of a row that is not in place; store_across writes those of a whole block.
  void store(int r, T logsumexp, bool across) {
    if (batch_.op == Op::logsumexp)
      store_logsumexp<S>(batch_, block_.offsets[r], block_.temperature[r], logsumexp);
    else if (!out_in_place_ && !across)
      store_row<S>(batch_, block_.offsets[r], rows_ + r * pitch_);
  }

  // Rows of one chunk each.
  void compute_rows(int first, int rows, bool across) {
    typename ChunkRows<T>::Row row[kLanes];
    T logsumexp[kLanes];
    const bool stream = batch_.stream && out_in_place_;
    for (int i = 0; i < rows; ++i) {
      const int r = first + i;
      const T* z = entries(r);
      T* out = batch_.op == Op::logsumexp ? logsumexp + i : results(r);
      row[i] = {z, out, stream || z == out ? weights_ + i * pitch_ : out};
      if (batch_.temperatures)
        kernel_.set_temperature(i, inverse_temperature<T>(std::fabs(block_.temperature[r])));
    }
    kernel_.run(row, rows, stream);
    for (int i = 0; i < rows; ++i) {
      if (!kernel_.in_range(i))
        exact_row(batch_.op, row[i].z, row[i].out, batch_.k,
                  std::fabs(block_.temperature[first + i]));
      store(first + i, logsumexp[i], across);
    }
  }

  void compute_row(int r, T* out) {
    const T* z = entries(r);
    const double t = std::fabs(block_.temperature[r]);
    const bool stream = batch_.stream && out_in_place_;
    InverseTemperature<T> row_beta;
    if (batch_.temperatures) row_beta = inverse_temperature<T>(t);
    const InverseTemperature<T>& beta = batch_.temperatures ? row_beta : batch_beta_;
    // exact_row needs z, so the weights do not replace it.
    T* e = stream || z == out ? weights_ : out;
    const RowKernel<T> kernel{batch_.op, z, out, batch_.k, beta, e, chunks_, stream};
    typename RowKernel<T>::Totals total;
    if (!kernel.run(batch_.row_threads, total)) exact_row(batch_.op, z, out, batch_.k, t);
  }

  bool adjacent(int64_t Offsets::* array) const {
    return block_.size == kLanes && block_.adjacent(array, sizeof(S));
  }

  // Sixteen rows that are adjacent columns: in place, or where S is not T, in rows_. False where
  // they are not adjacent, or out of range.
  bool compute_columns() {
    if (!plain_ || !batch_beta_.in_range || batch_.k > kChunkSize || !adjacent(&Offsets::z) ||
        (batch_.op != Op::logsumexp && !adjacent(&Offsets::out)))
      return false;
    const char* from = batch_.z + block_.offsets[0].z;
    char* to = batch_.out + block_.offsets[0].out;
    const T* z = rows_;
    T *out = rows_, *e = batch_.op == Op::softmax ? rows_ : weights_;
    int64_t z_step = kLanes, out_step = kLanes;
    if constexpr (kSameType) {
      z = reinterpret_cast<const T*>(from), out = reinterpret_cast<T*>(to), e = rows_;
      z_step = batch_.z_step / int64_t(sizeof(T)), out_step = batch_.out_step / int64_t(sizeof(T));
    } else {
      for (int64_t i = 0; i < batch_.k; ++i)
        widen_lanes(reinterpret_cast<const S*>(from + i * batch_.z_step), rows_ + i * kLanes);
    }
    ColumnRows<T> columns(batch_.op, batch_.k, batch_beta_);
    T logsumexp[kLanes];
    if (batch_.op == Op::logsumexp) out = logsumexp;
    if (!columns.run(z, z_step, e, out, out_step)) return false;
    if (batch_.op == Op::logsumexp) {
      for (int r = 0; r < kLanes; ++r)
        narrow_to(logsumexp[r], *reinterpret_cast<S*>(batch_.out + block_.offsets[r].out));
      return true;
    }
    if constexpr (!kSameType)
      for (int64_t i = 0; i < batch_.k; ++i)
        narrow_lanes(rows_ + i * kLanes, reinterpret_cast<S*>(to + i * batch_.out_step));
    return true;
  }

  // Several classes of sixteen adjacent columns at a time, or of all rows entry by entry.
  void load_across() {
    constexpr T inf = kInfinity<T>;
    int64_t i = 0;
    if (plain_ && adjacent(&Offsets::z)) {
      T lanes[4 * kLanes];
      for (; i + 4 <= batch_.k; i += 4) {
        for (int j = 0; j < 4; ++j)
          widen_lanes(
              reinterpret_cast<const S*>(batch_.z + block_.offsets[0].z + (i + j) * batch_.z_step),
              lanes + j * kLanes);
        for (int r = 0; r < kLanes; r += 4)
          transpose4(lanes + r, kLanes, rows_ + r * pitch_ + i, pitch_);
      }
    }
    for (; i < batch_.k; ++i)
      for (int r = 0; r < block_.size; ++r) {
        const T x = widened(
            *reinterpret_cast<const S*>(batch_.z + block_.offsets[r].z + i * batch_.z_step));
        rows_[r * pitch_ + i] = block_.temperature[r] < 0 && x != -inf ? -x : x;
      }
  }

  void store_across() {
    int64_t i = 0;
    if (adjacent(&Offsets::out)) {
      T lanes[4 * kLanes];
      for (; i + 4 <= batch_.k; i += 4) {
        for (int r = 0; r < kLanes; r += 4)
          transpose4(rows_ + r * pitch_ + i, pitch_, lanes + r, kLanes);
        for (int j = 0; j < 4; ++j)
          narrow_lanes(lanes + j * kLanes, reinterpret_cast<S*>(batch_.out + block_.offsets[0].out +
                                                                (i + j) * batch_.out_step));
      }
    }
    for (; i < batch_.k; ++i)
      for (int r = 0; r < block_.size; ++r)
        narrow_to(rows_[r * pitch_ + i],
                  *reinterpret_cast<S*>(batch_.out + block_.offsets[r].out + i * batch_.out_step));
  }

  const Batch& batch_;
  const bool z_in_place_;    // whether the entries of a row are contiguous, of type T and unmasked
  const bool out_in_place_;  // whether those of its result are contiguous and of type T
  const bool plain_;         // no mask, and one temperature >= 0
  const InverseTemperature<T> batch_beta_;
  const int64_t pitch_;  // entries from one row of rows_ to the next
  const int rows_at_once_;
  ChunkRows<T> kernel_;
  T *rows_, *weights_;
  ChunkSums<T>* chunks_;
  RowBlock block_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
