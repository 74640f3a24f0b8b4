// The cross-entropy of labels, and its gradient, of rows of one chunk and more than kMaxSmallRow
// classes, several rows at a time.
#pragma once

#include <type_traits>

#include "chunk_rows.h"
#include "layout.h"
#include "losses.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class S, class T>
class LabelLosses {
 public:
  explicit LabelLosses(const Batch& batch)
      : batch_(batch),
        with_gradient_(batch.op == Op::loss_and_gradient),
        contiguous_(std::is_same_v<S, T> && !batch.where && batch.z_step == sizeof(T) &&
                    (!with_gradient_ || batch.out_step == sizeof(T))),
        pitch_((batch.k + kLanes - 1) / kLanes * kLanes),
        kernel_(batch.op, batch.k) {
    if (batch.temperatures) return;
    const InverseTemperature<T> beta = inverse_temperature<T>(std::fabs(batch.temperature));
    for (int r = 0; r < kLanes; ++r) kernel_.set_temperature(r, beta);
  }

  void run(int64_t first, int64_t last) {
    thread_local Workspace workspace;
    const int rows_at_once = chunk_rows_at_once(batch_.k);
    z_ = static_cast<T*>(workspace.reserve(3 * rows_at_once * pitch_ * sizeof(T)));
    out_ = z_ + rows_at_once * pitch_;
    weights_ = out_ + rows_at_once * pitch_;
    RowIterator iterator(batch_, first);
    LabelledRow rows[kLanes];
    int n = 0;
    for (int64_t i = first; i < last; ++i, iterator.next()) {
      rows[n] = {i, label_of_row(batch_, i), iterator.temperature(), iterator.offsets()};
      if (rows[n].label < 0)
        write_row_without_label(rows[n]);
      else
        ++n;
      if (n == rows_at_once) {
        compute(rows, n);
        n = 0;
      }
    }
    if (n) compute(rows, n);
  }

 private:
  struct LabelledRow {
    int64_t number, label;
    double t;
    Offsets offsets;
  };

  bool in_place(const LabelledRow& row) const { return contiguous_ && row.t >= 0; }
  T* result(const LabelledRow& row, T* memory) const {
    return in_place(row) ? reinterpret_cast<T*>(batch_.out + row.offsets.out) : memory;
  }
  void store(const LabelledRow& row, const T* gradient) const {
    if (!in_place(row)) store_row<S>(batch_, row.offsets, gradient);
  }

  void write_row_without_label(const LabelledRow& row) const {
    batch_.loss[row.number] = loss_without_label(row.label);
    if (!with_gradient_) return;
    T* gradient = result(row, out_);
    fill(gradient, batch_.k, T(0));
    store(row, gradient);
  }

  void compute(const LabelledRow* rows, int n) {
    typename ChunkRows<T>::Row memory[kLanes];
    T label_logit[kLanes];
    const bool stream = batch_.stream && contiguous_;
    for (int r = 0; r < n; ++r) {
      const LabelledRow& row = rows[r];
      const T* z = reinterpret_cast<const T*>(batch_.z + row.offsets.z);
      if (!in_place(row)) {
        load_row<S>(batch_, row.offsets, row.t < 0, z_ + r * pitch_);
        z = z_ + r * pitch_;
      }
      T* out = with_gradient_ ? result(row, out_ + r * pitch_) : nullptr;
      memory[r] = {z, out, stream || z == out ? weights_ + r * pitch_ : out};
      label_logit[r] = z[row.label];
      if (batch_.temperatures) kernel_.set_temperature(r, inverse_temperature<T>(std::fabs(row.t)));
      if (with_gradient_) kernel_.set_gradient_scale(r, scale(row));
    }
    kernel_.run(memory, n, stream);
    for (int r = 0; r < n; ++r) {
      const LabelledRow& row = rows[r];
      T* gradient = memory[r].out;
      if (!kernel_.in_range(r)) {
        const Targets<T> target{nullptr, row.label, 0, nullptr};
        batch_.loss[row.number] =
            exact_loss(memory[r].z, gradient, batch_.k, target, std::fabs(row.t), scale(row));
      } else {
        batch_.loss[row.number] = kernel_.loss(r, label_logit[r]);
        if (with_gradient_)
          gradient[row.label] = kernel_.label_gradient(r, gradient[row.label], label_logit[r]);
      }
      if (!with_gradient_) continue;
      if (batch_.gradient_scale[row.number] < 0)
        for (int64_t i = 0; i < batch_.k; ++i) gradient[i] = -gradient[i];
      store(row, gradient);
    }
  }
  double scale(const LabelledRow& row) const {
    return with_gradient_ ? std::fabs(batch_.gradient_scale[row.number]) : 1;
  }

  const Batch& batch_;
  const bool with_gradient_, contiguous_;
  const int64_t pitch_;
  ChunkRows<T> kernel_;
  T *z_, *out_, *weights_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
