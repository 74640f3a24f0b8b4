// The cross-entropy of labels, and its gradient scale (p - y), in the one sweep of a softmax.
#pragma once

#include "layout.h"
#include "rows.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Where a gradient of this scale (not negative) stays clear of the ends of the range of float.
inline bool moderate(double scale) { return scale == 0 || (scale > 0x1p-30 && scale < 0x1p20); }

// The gradient at the label, of which `g` is scale p so far and `z` the logit. p - 1 is less the
// sum of the others; where the label is the largest, that sum is known by itself.
template <class T>
T at_label_of(T g, T z, T m, double others, double scale) {
  if (z == -std::numeric_limits<T>::infinity()) return 0;
  if (z == m && others < 1) return T(-scale * (others / (1 + others)));
  return T(double(g) - scale);
}

// The loss, and unless `out` is null the gradient, at any magnitude and temperature, from the
// results of exact_row. `e` is room for a row.
template <class T>
double exact_loss(const T* z, T* out, T* e, int64_t k, int64_t label, double t, double scale) {
  exact_row(Op::log_softmax, z, e, k, t);
  if (out) {
    exact_row(Op::softmax, z, out, k, t);
    double others = 0, lost = 0;
    for (int64_t i = 0; i < k; ++i)
      if (i != label) others = two_sum(others, double(out[i]), lost);
    // The scale may be infinite, as 1/T of a tiny T: 0 stays 0.
    const auto scaled = [scale](double p) { return p == 0 ? T(0) : T(scale * p); };
    for (int64_t i = 0; i < k; ++i) out[i] = scaled(double(out[i]));
    out[label] = e[label] == -std::numeric_limits<T>::infinity() ? T(0) : -scaled(others + lost);
  }
  return -double(e[label]);
}

template <class S, class T>
class Losses {
 public:
  explicit Losses(const Batch& b)
      : b_(b),
        gradient_(b.op == Op::loss_and_gradient),
        here_(std::is_same_v<S, T> && !b.where && b.z_step == sizeof(T) &&
              (!gradient_ || b.out_step == sizeof(T))),
        one_(scale_of<T>(std::fabs(b.temperature))) {}

  void run(int64_t first, int64_t last) {
    thread_local Room room;
    const int64_t count = (b_.k + kChunk - 1) / kChunk;
    const int64_t pitch = (b_.k + kLanes - 1) / kLanes * kLanes;
    z_ = static_cast<T*>(room.get(3 * pitch * sizeof(T) + count * sizeof(Chunk<T>)));
    out_ = z_ + pitch;
    e_ = out_ + pitch;
    chunks_ = reinterpret_cast<Chunk<T>*>(e_ + pitch);
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
    if (b_.label[row] < 0) {
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
    const T at_label = z[b_.label[row]];
    const Row<T> x{b_.op, z, out, b_.k, s, stream || z == out ? e_ : out, chunks_, stream, scale};
    typename Row<T>::Whole w;
    if (!moderate(scale) || !(b_.row_threads > 1 ? x.run(b_.row_threads, w) : x.run(w)))
      return exact_loss(z, gradient_ ? out : nullptr, e_, b_.k, b_.label[row], t, scale);
    if (gradient_) {
      T& g = out[b_.label[row]];
      g = at_label_of(g, at_label, w.m, w.others, scale);
    }
    return w.log + ((double(w.m) - double(at_label)) / t + w.log_low);
  }

  const Batch& b_;
  const bool gradient_, here_;
  const Scale<T> one_;
  T *z_, *out_, *e_;  // room for a row each
  Chunk<T>* chunks_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
