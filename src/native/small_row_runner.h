// The rows of a batch of at most kMaxSmallRow classes, sixteen at a time.
#pragma once

#include <type_traits>

#include "layout.h"
#include "losses.h"
#include "small_rows.h"
#include "transpose.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class S, class T>
class SmallRowRunner {
  static constexpr bool kSameType = std::is_same_v<S, T>;

 public:
  explicit SmallRowRunner(const Batch& batch)
      : batch_(batch),
        plain_(!batch.where && !batch.temperatures && batch.temperature >= 0),
        kernel_(batch.op, batch.k) {
    if (batch.temperatures) return;
    const InverseTemperature<T> beta = inverse_temperature<T>(std::fabs(batch.temperature));
    for (int r = 0; r < kLanes; ++r) kernel_.set_temperature(r, beta);
  }

  void run(int64_t first, int64_t last) {
    // Blocks of 4 x 4 entries may reach beyond the last class.
    thread_local Workspace workspace;
    const int64_t lanes = kPaddedSmallRow * kLanes;
    z_ = static_cast<T*>(workspace.reserve(4 * lanes * sizeof(T)));
    result_ = z_ + lanes;
    targets_ = result_ + lanes;
    rows_ = targets_ + lanes;
    if (plain_ && contiguous())
      for (; first + kLanes <= last; first += kLanes) compute_contiguous(first);
    if (first == last) return;
    RowIterator rows(batch_, first);
    for (; first < last; first += block_.size) {
      block_.take(rows, int(min<int64_t>(kLanes, last - first)));
      compute_block(first);
    }
  }

 private:
  // Whether z and out have their rows one after another.
  bool contiguous() const {
    const Batch& b = batch_;
    const int64_t row = b.k * int64_t(sizeof(S));
    return b.dims <= 1 && b.z_step == sizeof(S) && (b.dims == 0 || b.z_stride[0] == row) &&
           (b.op == Op::logsumexp || b.op == Op::loss ||
            (b.out_step == sizeof(S) && (b.dims == 0 || b.out_stride[0] == row)));
  }

  // Sixteen rows from `row` on, of a contiguous batch.
  void compute_contiguous(int64_t row) {
    const int64_t size = kLanes * batch_.k;
    const S* z = reinterpret_cast<const S*>(batch_.z) + row * batch_.k;
    if constexpr (kSameType) {
      transpose_in(z, batch_.k, z_);
    } else {
      widen_all(z, rows_, size);
      transpose_in(rows_, batch_.k, z_);
    }
    compute_lanes(row, kLanes);
    if (batch_.op == Op::loss) return;
    if (batch_.op == Op::logsumexp) {
      const int64_t step = batch_.dims ? batch_.out_stride[0] : 0;
      for (int r = 0; r < kLanes; ++r)
        narrow_to(result_[r], *reinterpret_cast<S*>(batch_.out + (row + r) * step));
      return;
    }
    S* out = reinterpret_cast<S*>(batch_.out) + row * batch_.k;
    if constexpr (kSameType) {
      transpose_out(result_, batch_.k, out);
    } else {
      transpose_out(result_, batch_.k, rows_);
      narrow_all(rows_, out, size);
    }
  }

  // The rows of block_, from `row` on.
  void compute_block(int64_t row) {
    load_block();
    if (batch_.temperatures)
      for (int r = 0; r < block_.size; ++r)
        kernel_.set_temperature(r, inverse_temperature<T>(std::fabs(block_.temperature[r])));
    compute_lanes(row, block_.size);
    if (batch_.op == Op::logsumexp) {
      for (int r = 0; r < block_.size; ++r)
        store_logsumexp<S>(batch_, block_.offsets[r], block_.temperature[r], result_[r]);
    } else if (batch_.op != Op::loss) {
      store_block();
    }
  }

  void load_block() {
    if (plain_ && block_.size == kLanes && block_.adjacent(&Offsets::z, sizeof(S))) {
      const char* z = batch_.z + block_.offsets[0].z;
      for (int64_t i = 0; i < batch_.k; ++i, z += batch_.z_step)
        widen_lanes(reinterpret_cast<const S*>(z), z_ + i * kLanes);
      return;
    }
    load_rows<S>(batch_, block_, rows_);
    transpose_rows_in(rows_, batch_.k, block_.size, z_);
  }

  void store_block() {
    const int size = block_.size;
    if (size == kLanes && block_.adjacent(&Offsets::out, sizeof(S))) {
      char* out = batch_.out + block_.offsets[0].out;
      for (int64_t i = 0; i < batch_.k; ++i, out += batch_.out_step)
        narrow_lanes(result_ + i * kLanes, reinterpret_cast<S*>(out));
      return;
    }
    if (size == kLanes)
      transpose_out(result_, batch_.k, rows_);
    else
      for (int r = 0; r < size; ++r)
        for (int64_t i = 0; i < batch_.k; ++i) rows_[r * batch_.k + i] = result_[i * kLanes + r];
    for (int r = 0; r < size; ++r) store_row<S>(batch_, block_.offsets[r], rows_ + r * batch_.k);
  }

  // The results of `size` rows from `row` on, whose entries are in the lanes.
  void compute_lanes(int64_t row, int size) {
    if (batch_.op == Op::loss_and_gradient)
      for (int r = 0; r < size; ++r)
        kernel_.set_gradient_scale(r, std::fabs(batch_.gradient_scale[row + r]));
    int64_t label[kLanes] = {};
    for (int r = 0; batch_.label && r < size; ++r) label_[r] = label_of_row(batch_, row + r);
    if (batch_.targets || batch_.smoothing > 0) {
      for (int r = 0; batch_.label && r < size; ++r) label[r] = max<int64_t>(label_[r], 0);
      if (batch_.targets) load_targets(row, size);
      kernel_.set_targets(batch_.targets ? targets_ : nullptr, label, batch_.smoothing);
    }
    kernel_.run(z_, result_);
    if (batch_.loss) return compute_losses(row, size);
    if (kernel_.all_in_range()) return;
    for (int r = 0; r < size; ++r)
      if (!kernel_.in_range(r)) recompute_exactly(r);
  }

  // The distributions of `size` rows from `row` on into lanes.
  void load_targets(int64_t row, int size) {
    const T* y = static_cast<const T*>(batch_.targets) + row * batch_.k;
    transpose_rows_in(y, batch_.k, size, targets_);
  }

  void compute_losses(int64_t row, int size) {
    const bool with_gradient = batch_.op == Op::loss_and_gradient;
    for (int r = 0; r < size; ++r) {
      const int64_t label = batch_.label ? label_[r] : -1;
      double& loss = batch_.loss[row + r];
      if (batch_.label && label < 0) {
        loss = loss_without_label(label);
        for (int64_t i = 0; with_gradient && i < batch_.k; ++i) result_[i * kLanes + r] = 0;
      } else if (kernel_.loss_in_range(r)) {
        loss = kernel_.loss(r, label, result_);
      } else {
        loss = recompute_loss_exactly(row, r);
      }
      if (with_gradient && batch_.gradient_scale[row + r] < 0)
        for (int64_t i = 0; i < batch_.k; ++i) result_[i * kLanes + r] = -result_[i * kLanes + r];
    }
  }

  double recompute_loss_exactly(int64_t row, int r) {
    const bool with_gradient = batch_.op == Op::loss_and_gradient;
    T z[kMaxSmallRow], gradient[kMaxSmallRow];
    copy_row(r, z);
    const double scale = with_gradient ? std::fabs(batch_.gradient_scale[row + r]) : 1;
    const double loss =
        exact_loss(z, with_gradient ? gradient : nullptr, batch_.k,
                   targets_of_row<T>(batch_, row + r, batch_.label ? label_[r] : 0, nullptr),
                   std::fabs(temperature(r)), scale);
    for (int64_t i = 0; with_gradient && i < batch_.k; ++i) result_[i * kLanes + r] = gradient[i];
    return loss;
  }

  // For a row outside of the range of the vector kernel.
  void recompute_exactly(int r) {
    T z[kMaxSmallRow], out[kMaxSmallRow];
    copy_row(r, z);
    exact_row(batch_.op, z, out, batch_.k, std::fabs(temperature(r)));
    const int64_t count = batch_.op == Op::logsumexp ? 1 : batch_.k;
    for (int64_t i = 0; i < count; ++i) result_[i * kLanes + r] = out[i];
  }

  void copy_row(int r, T* z) const {
    for (int64_t i = 0; i < batch_.k; ++i) z[i] = z_[i * kLanes + r];
  }
  // block_ is not set where the batch is contiguous, which has one temperature.
  double temperature(int r) const {
    return batch_.temperatures ? block_.temperature[r] : batch_.temperature;
  }

  const Batch& batch_;
  const bool plain_;  // no mask, and one temperature >= 0
  SmallRows<T> kernel_;
  T *z_, *result_, *targets_;  // entry i of row r at i * 16 + r
  T* rows_;                    // entry i of row r at r * k + i
  RowBlock block_;
  int64_t label_[kLanes];
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
