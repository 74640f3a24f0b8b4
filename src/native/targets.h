// The targets of a cross-entropy: y_i = a t_i + b [class i is not excluded], where t is the given
// distribution or 1 at a label, a = 1 - smoothing and b = smoothing over the number of classes that
// are not excluded. With Y the sum of y and m the largest logit, the cross-entropy is
// Y log sum exp((z - m)/T) + sum y (m - z)/T, whose terms are not negative, and its derivative by
// the logits is (Y p - y)/T.
#pragma once

#include "batch.h"
#include "vector_math.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Sums over a chunk, or over the row.
struct TargetSums {
  double target = 0;            // t
  double target_below_max = 0;  // t, without the largest logits
  double distance = 0;          // t (m - z)
  double classes = 0;           // 1, of the classes that are not excluded
  double class_distance = 0;    // m - z, of the classes that are not excluded
};

// Adds t (m - z), in double: in float, the product of small numbers would be subnormal. A target of
// 0 on an excluded class adds 0.
template <class T>
void accumulate_distance(LaneSums<T>& sums, const Vec<T>& t, const Vec<T>& m, const Vec<T>& z) {
  const Vec<double> wide = widen(t);
  const Vec<double> distance =
      unless_equal(wide, Vec<double>(0.0), mul(wide, sub(widen(m), widen(z))));
  if constexpr (sizeof(T) == 4)
    sums.sum = add(sums.sum, distance);
  else
    sums.accumulate(distance);
}

template <class T>
struct Targets {
  const T* distribution;  // null where there is a label
  int64_t label;
  double smoothing;
  TargetSums* chunks;  // memory for one per chunk

  // The sums of chunk i, which begins at entry `first` and whose largest logit is m.
  void sum_chunk(int64_t i, const T* z, int64_t first, int64_t k, T m) const;
};

// What a row without a label has instead of one.
constexpr int64_t kIgnored = -1, kNoSuchClass = -2;

// The label of a row, read once: another thread of Python may change the labels during the call.
inline int64_t label_of_row(const Batch& batch, int64_t row) {
  const int64_t label = *static_cast<const volatile int64_t*>(batch.label + row);
  return label < 0 ? kIgnored : label < batch.k ? label : kNoSuchClass;
}
inline double loss_without_label(int64_t label) { return label == kIgnored ? 0 : kNaN<double>; }

template <class T>
Targets<T> targets_of_row(const Batch& batch, int64_t row, int64_t label, TargetSums* chunks) {
  const T* y = batch.targets ? static_cast<const T*>(batch.targets) + row * batch.k : nullptr;
  return {y, label, batch.smoothing, chunks};
}

template <class T, bool Distribution, bool Smooth>
LOGITLAB_FLATTEN TargetSums sum_targets(const T* z, const T* targets, int64_t k, T m) {
  constexpr T inf = kInfinity<T>;
  const Vec<T> lowest(-inf), top(m), origin(m == -inf ? T(0) : m), one(T(1));
  LaneSums<T> sums[4];
  Vec<T> classes(T(0));
  struct Part {
    Vec<T> target{T(0)}, target_below_max{T(0)}, class_distance{T(0)};
  };
  auto part = [&](const T* from, const T* t) {
    Part p;
    const Vec<T> v(from);
    if constexpr (Distribution) {
      p.target = Vec<T>(t);
      p.target_below_max = unless_equal(v, top, p.target);
      accumulate_distance(sums[2], p.target, origin, v);
    }
    if constexpr (Smooth) {
      classes = add(classes, unless_equal(v, lowest, one));
      p.class_distance = unless_equal(v, lowest, sub(origin, v));
    }
    return p;
  };
  auto add_parts = [&](const Part& a, const Part& b) {
    if constexpr (Distribution) {
      sums[0].accumulate(add(a.target, b.target));
      sums[1].accumulate(add(a.target_below_max, b.target_below_max));
    }
    if constexpr (Smooth) sums[3].accumulate(add(a.class_distance, b.class_distance));
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes) {
    // The order matters: each part adds to sums[2].
    const Part a = part(z + i, Distribution ? targets + i : nullptr);
    const Part b = part(z + i + kLanes, Distribution ? targets + i + kLanes : nullptr);
    add_parts(a, b);
  }
  for (; i < k; i += kLanes) {
    const int64_t n = min<int64_t>(kLanes, k - i);
    T padded[kLanes], padded_t[kLanes] = {};
    copy_padded(z + i, n, padded, kLanes, -inf);
    if constexpr (Distribution) copy(targets + i, n, padded_t);
    add_parts(part(padded, padded_t), Part());
  }
  double sum[kLanes][4], error[kLanes][4];
  for (int j = 0; j < 4; ++j) {
    double lane[kLanes], lane_error[kLanes];
    sums[j].put(lane, lane_error);
    for (int l = 0; l < kLanes; ++l) sum[l][j] = lane[l], error[l][j] = lane_error[l];
  }
  reduce_lanes<4>(sum, error);
  TargetSums all{sum[0][0], sum[0][1], sum[0][2], 0, sum[0][3]};
  T count[kLanes];
  classes.put(count);
  for (T n : count) all.classes += double(n);
  return all;
}

template <class T>
void Targets<T>::sum_chunk(int64_t i, const T* z, int64_t first, int64_t k, T m) const {
  const T* y = distribution ? distribution + first : nullptr;
  chunks[i] = !distribution   ? sum_targets<T, false, true>(z + first, y, k, m)
              : smoothing > 0 ? sum_targets<T, true, true>(z + first, y, k, m)
                              : sum_targets<T, true, false>(z + first, y, k, m);
}

// Sums over a row of y = a t + b.
struct TargetTotals {
  double a, b;
  double total;            // Y
  double total_below_max;  // of y, without a largest logit that has no tie
  double distance;         // sum y (m - z)
  double label_target;     // a at a label
};

// Of a row with a distribution.
inline TargetTotals target_totals(const TargetSums& sums, double smoothing) {
  TargetTotals x{1 - smoothing, smoothing > 0 ? smoothing / sums.classes : 0, smoothing, 0, 0, 0};
  x.total += x.a * sums.target, x.total_below_max = x.a * sums.target_below_max;
  x.distance = x.a * sums.distance;
  if (smoothing > 0)
    x.total_below_max += x.b * (sums.classes - 1), x.distance += x.b * sums.class_distance;
  return x;
}

// Of a row with a label, whose logit is z.
inline TargetTotals label_totals(TargetSums sums, double smoothing, double z, double m) {
  sums.target = 1, sums.target_below_max = z != m, sums.distance = m - z;
  TargetTotals x = target_totals(sums, smoothing);
  x.total = 1, x.label_target = x.a;
  return x;
}

// Whether a gradient of this scale (not negative) is far from the ends of the range of float.
inline bool gradient_in_range(double scale) {
  return scale == 0 || (scale > 0x1p-30 && scale < 0x1p20);
}

// Where T is tiny, the rounding errors of t (m - z) are large over T.
inline bool gradient_in_range(const TargetTotals& x, double scale, double t) {
  return x.distance < kInfinity<double> && gradient_in_range(scale * x.total) &&
         (t > 0x1p-100 || x.total_below_max == 0);
}

// The gradient at the label, where g is scale p and z the logit. p - 1 is minus the sum of the
// other probabilities; where the label is the largest logit, that sum is known without
// cancellation.
template <class T>
T label_gradient(T g, T z, T m, double others, double scale) {
  if (z == -kInfinity<T>) return 0;
  if (z == m && others < 1) return T(-scale * (others / (1 + others)));
  return T(double(g) - scale);
}

// The same for a label that has `target.label_target` of y, after subtract_targets.
template <class T>
T label_gradient(T g, T z, T m, double others, double scale, const TargetTotals& target) {
  if (z == -kInfinity<T>) return 0;
  if (z == m && others < 1) return g;
  return T(double(g) - scale * target.label_target);
}

// From gradients scale Y p to scale (Y p - y), except for the a of a label. At a largest logit
// without ties, Y p - y is the y of the other classes minus their Y p, which does not cancel.
template <class T>
struct TargetStep {
  Vec<T> minus_a, minus_b, dominant_max, gradient_at_max, lowest;
  // The logit that gradient_at_max replaces the gradient of, or NaN; `others` is as in LogSum.
  static T max_if_dominant(T m, double others) { return others < 1 ? m : kNaN<T>; }
  static T dominant_gradient(const TargetTotals& x, double others, double scale) {
    return others < 1 ? T(scale * (x.total_below_max - x.total * (others / (1 + others)))) : T(0);
  }
  Vec<T> operator()(const Vec<T>& g, const Vec<T>& z, const Vec<T>& t) const {
    const Vec<T> all = fma(t, minus_a, add(g, unless_equal(z, lowest, minus_b)));
    return add(unless_equal(z, dominant_max, all),
               sub(gradient_at_max, unless_equal(z, dominant_max, gradient_at_max)));
  }
};

template <class T>
LOGITLAB_FLATTEN void subtract_targets(const TargetStep<T>& step, const T* g, const T* z,
                                       const T* t, T* out, int64_t k, bool stream) {
  const Vec<T> zero(T(0));
  int64_t i = 0;
  auto partial = [&](int64_t n) {
    T g_lanes[kLanes] = {}, z_lanes[kLanes] = {}, t_lanes[kLanes] = {};
    copy(g + i, n, g_lanes);
    copy(z + i, n, z_lanes);
    if (t) copy(t + i, n, t_lanes);
    step(Vec<T>(g_lanes), Vec<T>(z_lanes), Vec<T>(t_lanes)).put(g_lanes);
    copy(g_lanes, n, out + i);
    i += n;
  };
  const auto lanes = [&] { return step(Vec<T>(g + i), Vec<T>(z + i), t ? Vec<T>(t + i) : zero); };
  if (stream) {
    const int64_t bytes = int64_t(-reinterpret_cast<uintptr_t>(out) % 64);
    partial(min(k, bytes / int64_t(sizeof(T))));
    for (; i + kLanes <= k; i += kLanes) lanes().put_streaming(out + i);
  }
  for (; i + kLanes <= k; i += kLanes) lanes().put(out + i);
  if (i < k) partial(k - i);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
