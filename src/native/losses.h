// The cross-entropy of targets y, and its gradient scale (p - y), in one pass over a row.
#pragma once

#include <type_traits>

#include "layout.h"
#include "row_kernel.h"
#include "targets.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// y (m - z)/t of finite z and m, where (m - z)/t alone overflows.
inline double scaled_distance(double y, double z, double m, double t) {
  const double half = 0.5 * m - 0.5 * z, product = y * half;
  return 2 * (product < 0x1p-1000 ? y / t * half : product / t);
}

// The loss, and unless `out` is null the gradient, of any logits and temperature, computed from the
// results of exact_row in double. `out` may be z.
template <class T>
double exact_loss(const T* z, T* out, int64_t k, const Targets<T>& targets, double t,
                  double scale) {
  constexpr double inf = kInfinity<double>;
  thread_local Workspace workspace;
  double* const wide = static_cast<double*>(workspace.reserve(size_t(3 * k) * sizeof(double)));
  double *const log_p = wide + k, *const p = log_p + k;
  for (int64_t i = 0; i < k; ++i) wide[i] = double(z[i]);
  exact_row(Op::log_softmax, wide, log_p, k, t);
  const double classes = double(k - count(wide, k, -inf));
  auto target = [&](int64_t i) {
    const double y =
        targets.distribution ? double(targets.distribution[i]) : double(i == targets.label);
    if (!(targets.smoothing > 0)) return y;
    return (1 - targets.smoothing) * y + (wide[i] == -inf ? 0 : targets.smoothing / classes);
  };
  const int64_t top = index_of_max(log_p, k);
  const bool finite_quotients = t > 0 && t < inf && is_finite(wide[top]);
  // Sums and their rounding errors; only the loss may be infinite.
  double loss = 0, loss_error = 0, total = 0, total_error = 0, rest = 0, rest_error = 0;
  for (int64_t i = 0; i < k; ++i) {
    const double y = target(i);
    if (y != 0 || is_nan(log_p[i])) {
      const bool overflows = log_p[i] == -inf && finite_quotients && is_finite(wide[i]);
      const double term = overflows ? scaled_distance(y, wide[i], wide[top], t) : -y * log_p[i];
      loss = two_sum(loss, term, loss_error);
    }
    total = two_sum(total, y, total_error);
    if (i != top) rest = two_sum(rest, y, rest_error);
  }
  total += total_error;
  if (out) {
    exact_row(Op::softmax, wide, p, k, t);
    double others = 0, others_error = 0;
    for (int64_t i = 0; i < k; ++i)
      if (i != top) others = two_sum(others, p[i], others_error);
    for (int64_t i = 0; i < k; ++i) {
      const double gradient = i == top && p[i] > 0.5
                                  ? rest + rest_error - total * (others + others_error)
                                  : total * p[i] - target(i);
      const bool excluded = wide[i] == -inf && !is_nan(p[i]);
      // Not scale * 0, as the scale is infinite where T is tiny.
      out[i] = excluded || gradient == 0 ? T(0) : T(scale * gradient);
    }
  }
  workspace.release_above(size_t(1) << 22);
  return is_finite(loss) ? loss + loss_error : loss;
}

// The losses of rows of more than kMaxSmallRow classes, one by one.
template <class S, class T>
class LargeRowLosses {
 public:
  explicit LargeRowLosses(const Batch& batch)
      : batch_(batch),
        with_gradient_(batch.op == Op::loss_and_gradient),
        more_than_label_(batch.targets || batch.smoothing > 0),
        contiguous_(std::is_same_v<S, T> && !batch.where && batch.z_step == sizeof(T) &&
                    (!with_gradient_ || batch.out_step == sizeof(T))),
        batch_beta_(inverse_temperature<T>(std::fabs(batch.temperature))) {}

  void run(int64_t first, int64_t last) {
    thread_local Workspace workspace;
    const int64_t count = chunk_count(batch_.k);
    const int64_t pitch = (batch_.k + kLanes - 1) / kLanes * kLanes;
    // Memory for a row where it is used: of a long row it may be more than z has.
    const bool copied = !contiguous_ || batch_.temperatures || batch_.temperature < 0;
    const int64_t z_size = copied ? pitch : 0, out_size = with_gradient_ ? z_size : 0,
                  weights_size = with_gradient_ && contiguous_ ? pitch : 0;
    z_ = static_cast<T*>(workspace.reserve((z_size + out_size + weights_size) * sizeof(T) +
                                           count * (sizeof(ChunkSums<T>) + sizeof(TargetSums))));
    out_ = z_ + z_size;
    weights_ = out_ + out_size;
    chunks_ = reinterpret_cast<ChunkSums<T>*>(weights_ + weights_size);
    target_sums_ = reinterpret_cast<TargetSums*>(chunks_ + count);
    RowIterator rows(batch_, first);
    for (int64_t row = first; row < last; ++row, rows.next())
      compute_row(row, rows.offsets(), rows.temperature());
    workspace.release_above(size_t(1) << 25);
  }

 private:
  void compute_row(int64_t row, const Offsets& offsets, double t) {
    const bool in_place = contiguous_ && t >= 0;
    const T* z = in_place ? reinterpret_cast<const T*>(batch_.z + offsets.z) : z_;
    T* out = in_place ? reinterpret_cast<T*>(batch_.out + offsets.out) : out_;
    const int64_t label = batch_.label ? label_of_row(batch_, row) : 0;
    if (label < 0) {
      batch_.loss[row] = loss_without_label(label);
      if (with_gradient_) fill(out, batch_.k, T(0));
    } else {
      if (!in_place) load_row<S>(batch_, offsets, t < 0, z_);
      batch_.loss[row] = loss(row, label, z, out, std::fabs(t), in_place && batch_.stream);
      if (with_gradient_ && batch_.gradient_scale[row] < 0)
        for (int64_t i = 0; i < batch_.k; ++i) out[i] = -out[i];
    }
    if (with_gradient_ && !in_place) store_row<S>(batch_, offsets, out);
  }

  double loss(int64_t row, int64_t label, const T* z, T* out, double t, bool stream) {
    const InverseTemperature<T> beta =
        batch_.temperatures ? inverse_temperature<T>(t) : batch_beta_;
    const double scale = with_gradient_ ? std::fabs(batch_.gradient_scale[row]) : 1;
    const Targets<T> targets = targets_of_row<T>(batch_, row, label, target_sums_);
    const T label_logit = targets.distribution ? T(0) : z[targets.label];
    const RowKernel<T> kernel{batch_.op, z,
                              out,       batch_.k,
                              beta,      stream || z == out ? weights_ : out,
                              chunks_,   stream,
                              scale,     more_than_label_ ? &targets : nullptr};
    typename RowKernel<T>::Totals total;
    if (!gradient_in_range(scale) || !kernel.run(batch_.row_threads, total))
      return exact_loss(z, with_gradient_ ? out : nullptr, batch_.k, targets, t, scale);
    if (with_gradient_ && !targets.distribution) {
      T& g = out[targets.label];
      g = more_than_label_
              ? label_gradient(g, label_logit, total.max, total.others, scale, total.target)
              : label_gradient(g, label_logit, total.max, total.others, scale);
    }
    if (more_than_label_)
      return total.target.total * total.log_sum +
             (total.target.distance / t + total.target.total * total.log_sum_low);
    return total.log_sum + ((double(total.max) - double(label_logit)) / t + total.log_sum_low);
  }

  const Batch& batch_;
  const bool with_gradient_, more_than_label_, contiguous_;
  const InverseTemperature<T> batch_beta_;
  T *z_, *out_, *weights_;
  ChunkSums<T>* chunks_;
  TargetSums* target_sums_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
