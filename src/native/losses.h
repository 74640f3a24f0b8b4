// The cross-entropy of targets y, and its gradient scale (p - y), in the one sweep of a softmax.
#pragma once

#include "layout.h"
#include "row_kernel.h"
#include "targets.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The gradient at the label, of which `g` is scale p so far and `z` the logit. p - 1 is less the
// sum of the others; where the label is the largest, that sum is known by itself.
template <class T>
T at_label_of(T g, T z, T m, double others, double scale) {
  if (z == -std::numeric_limits<T>::infinity()) return 0;
  if (z == m && others < 1) return T(-scale * (others / (1 + others)));
  return T(double(g) - scale);
}

// The same where the label has `aim.at_label` of y, and the step at the largest logit is done.
template <class T>
T at_label_of(T g, T z, T m, double others, double scale, const Aim& aim) {
  if (z == -std::numeric_limits<T>::infinity()) return 0;
  if (z == m && others < 1) return g;
  return T(double(g) - scale * aim.at_label);
}

// The loss, and unless `out` is null the gradient, at any magnitude and temperature, from the
// results of exact_row in double. `out` may be z.
template <class T>
double exact_loss(const T* z, T* out, int64_t k, const Targets<T>& x, double t, double scale) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  thread_local Room room;
  double* const wide = static_cast<double*>(room.get(size_t(3 * k) * sizeof(double)));
  double *const log_p = wide + k, *const p = log_p + k;
  std::copy(z, z + k, wide);
  exact_row(Op::log_softmax, wide, log_p, k, t);
  const double left = double(k - std::count(wide, wide + k, -inf));
  auto target = [&](int64_t i) {
    const double y = x.given ? double(x.given[i]) : double(i == x.label);
    if (!(x.smoothing > 0)) return y;
    return (1 - x.smoothing) * y + (wide[i] == -inf ? 0 : x.smoothing / left);
  };
  const int64_t top = std::max_element(log_p, log_p + k) - log_p;
  // Sums and what they lost; the loss alone may be infinite.
  double loss = 0, loss_low = 0, total = 0, total_low = 0, rest = 0, rest_low = 0;
  for (int64_t i = 0; i < k; ++i) {
    const double y = target(i);
    if (y != 0 || std::isnan(log_p[i])) loss = two_sum(loss, -y * log_p[i], loss_low);
    total = two_sum(total, y, total_low);
    if (i != top) rest = two_sum(rest, y, rest_low);
  }
  total += total_low;
  if (out) {
    exact_row(Op::softmax, wide, p, k, t);
    double others = 0, low = 0;
    for (int64_t i = 0; i < k; ++i)
      if (i != top) others = two_sum(others, p[i], low);
    // No finite change moves what is excluded, or what stands beside an infinite logit.
    const bool beyond = std::count(wide, wide + k, inf) > 0;
    for (int64_t i = 0; i < k; ++i) {
      const double gradient = i == top && p[i] > 0.5 ? rest + rest_low - total * (others + low)
                                                     : total * p[i] - target(i);
      const bool still =
          !std::isnan(p[i]) && (wide[i] == -inf || (beyond && std::isfinite(wide[i])));
      // The scale may be infinite, as 1/T of a tiny T: 0 stays 0.
      out[i] = still || gradient == 0 ? T(0) : T(scale * gradient);
    }
  }
  room.trim(size_t(1) << 22);
  return std::isfinite(loss) ? loss + loss_low : loss;
}

template <class S, class T>
class Losses {
 public:
  explicit Losses(const Batch& b)
      : b_(b),
        gradient_(b.op == Op::loss_and_gradient),
        more_(b.targets || b.smoothing > 0),
        here_(std::is_same_v<S, T> && !b.where && b.z_step == sizeof(T) &&
              (!gradient_ || b.out_step == sizeof(T))),
        one_(scale_of<T>(std::fabs(b.temperature))) {}

  void run(int64_t first, int64_t last) {
    thread_local Room room;
    const int64_t count = (b_.k + kChunk - 1) / kChunk;
    const int64_t pitch = (b_.k + kLanes - 1) / kLanes * kLanes;
    z_ = static_cast<T*>(
        room.get(3 * pitch * sizeof(T) + count * (sizeof(Chunk<T>) + sizeof(Tally))));
    out_ = z_ + pitch;
    e_ = out_ + pitch;
    chunks_ = reinterpret_cast<Chunk<T>*>(e_ + pitch);
    tallies_ = reinterpret_cast<Tally*>(chunks_ + count);
    Walk walk(b_, first);
    for (int64_t row = first; row < last; ++row, walk.next()) one(row, walk.here());
    room.trim(size_t(1) << 25);
  }

 private:
  void one(int64_t row, const Offsets& o) {
    const double t = b_.t ? *reinterpret_cast<const double*>(b_.t + o.t) : b_.temperature;
    const bool here = here_ && t >= 0;
    const T* z = here ? reinterpret_cast<const T*>(b_.z + o.z) : z_;
    T* out = here ? reinterpret_cast<T*>(b_.out + o.out) : out_;
    if (b_.label && b_.label[row] < 0) {
      b_.loss[row] = 0;
      if (gradient_) std::fill(out, out + b_.k, T(0));
    } else {
      if (!here) load_row<S>(b_, o, t < 0, z_, 1);
      b_.loss[row] = loss(row, z, out, std::fabs(t), here && b_.stream);
      if (gradient_ && b_.scale[row] < 0)
        for (int64_t i = 0; i < b_.k; ++i) out[i] = -out[i];
    }
    if (gradient_ && !here) store_row<S>(b_, o, out, 1);
  }

  double loss(int64_t row, const T* z, T* out, double t, bool stream) {
    const Scale<T> s = b_.t ? scale_of<T>(t) : one_;
    const double scale = gradient_ ? std::fabs(b_.scale[row]) : 1;
    const Targets<T> targets = targets_of<T>(b_, row, tallies_);
    const T at_label = targets.given ? T(0) : z[targets.label];
    const Row<T> x{b_.op,   z,
                   out,     b_.k,
                   s,       stream || z == out ? e_ : out,
                   chunks_, stream,
                   scale,   more_ ? &targets : nullptr};
    typename Row<T>::Whole w;
    if (!moderate(scale) || !(b_.row_threads > 1 ? x.run(b_.row_threads, w) : x.run(w)))
      return exact_loss(z, gradient_ ? out : nullptr, b_.k, targets, t, scale);
    if (gradient_ && !targets.given) {
      T& g = out[targets.label];
      g = more_ ? at_label_of(g, at_label, w.m, w.others, scale, w.aim)
                : at_label_of(g, at_label, w.m, w.others, scale);
    }
    if (more_) return w.aim.total * w.log + (w.aim.away / t + w.aim.total * w.log_low);
    return w.log + ((double(w.m) - double(at_label)) / t + w.log_low);
  }

  const Batch& b_;
  const bool gradient_, more_, here_;
  const Scale<T> one_;
  T *z_, *out_, *e_;  // room for a row each
  Chunk<T>* chunks_;
  Tally* tallies_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
