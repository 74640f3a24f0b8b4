// What a row's softmax is held to: y_i = a t_i + b [class i is not excluded], with t the given
// distribution or 1 at a label, a = 1 - smoothing and b = smoothing over the number of classes that
// are not excluded. With Y the sum of y and m the largest logit, the cross-entropy is
// Y log sum exp((z - m)/T) + sum y (m - z)/T, of terms that are not negative, and its derivative by
// the logits Y p - y over T.
#pragma once

#include "batch.h"
#include "vector_math.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Sums over a chunk, or over the row.
struct Tally {
  double given = 0, rest = 0;  // t; without the largest logits
  double away = 0;             // t (m - z)
  double left = 0;             // the classes that are not excluded
  double left_away = 0;        // their m - z
};

// Adds t (m - z), in double: of small numbers it would not be a normal float. A target of 0 on an
// excluded class costs nothing.
template <class T>
void add_away(Sums<T>& sums, const Vec<T>& t, const Vec<T>& m, const Vec<T>& z) {
  const Vec<double> wide = widen(t);
  const Vec<double> away = unless_equal(wide, Vec<double>(0.0), mul(wide, sub(widen(m), widen(z))));
  if constexpr (sizeof(T) == 4)
    sums.s = add(sums.s, away);
  else
    sums.add_to(away);
}

template <class T>
struct Targets {
  const T* given;  // null where there is a label
  int64_t label;
  double smoothing;
  Tally* chunks;  // room for one of every chunk

  // Of chunk i, which begins at entry `first` and whose largest logit is m.
  void see(int64_t i, const T* z, int64_t first, int64_t k, T m) const;
};

template <class T>
Targets<T> targets_of(const Batch& b, int64_t row, Tally* chunks) {
  const T* given = b.targets ? static_cast<const T*>(b.targets) + row * b.k : nullptr;
  return {given, b.label ? b.label[row] : 0, b.smoothing, chunks};
}

template <class T, bool Given, bool Smooth>
LOGITLAB_FLATTEN Tally tally(const T* z, const T* given, int64_t k, T m) {
  const T inf = std::numeric_limits<T>::infinity();
  const Vec<T> lowest(-inf), top(m), origin(m == -inf ? T(0) : m), one(T(1));
  Sums<T> sums[4];
  Vec<T> left(T(0));
  struct Part {
    Vec<T> given{T(0)}, rest{T(0)}, left_away{T(0)};
  };
  auto part = [&](const T* from, const T* t) {
    Part p;
    const Vec<T> v(from);
    if constexpr (Given) {
      p.given = Vec<T>(t);
      p.rest = unless_equal(v, top, p.given);
      add_away(sums[2], p.given, origin, v);
    }
    if constexpr (Smooth) {
      left = add(left, unless_equal(v, lowest, one));
      p.left_away = unless_equal(v, lowest, sub(origin, v));
    }
    return p;
  };
  auto add_parts = [&](const Part& a, const Part& b) {
    if constexpr (Given) {
      sums[0].add_to(add(a.given, b.given));
      sums[1].add_to(add(a.rest, b.rest));
    }
    if constexpr (Smooth) sums[3].add_to(add(a.left_away, b.left_away));
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes) {
    // In this order: each part adds to a sum.
    const Part a = part(z + i, Given ? given + i : nullptr);
    const Part b = part(z + i + kLanes, Given ? given + i + kLanes : nullptr);
    add_parts(a, b);
  }
  for (; i < k; i += kLanes) {
    const int64_t n = std::min<int64_t>(kLanes, k - i);
    T padded[kLanes], padded_t[kLanes] = {};
    std::fill(std::copy(z + i, z + i + n, padded), padded + kLanes, -inf);
    if constexpr (Given) std::copy(given + i, given + i + n, padded_t);
    add_parts(part(padded, padded_t), Part());
  }
  double lane[kLanes][4], lost[kLanes][4];
  for (int j = 0; j < 4; ++j) {
    double x[kLanes], low[kLanes];
    sums[j].put(x, low);
    for (int l = 0; l < kLanes; ++l) lane[l][j] = x[l], lost[l][j] = low[l];
  }
  tree<4>(lane, lost);
  Tally all{lane[0][0], lane[0][1], lane[0][2], 0, lane[0][3]};
  T count[kLanes];
  left.put(count);
  for (T n : count) all.left += double(n);
  return all;
}

template <class T>
void Targets<T>::see(int64_t i, const T* z, int64_t first, int64_t k, T m) const {
  const T* t = given ? given + first : nullptr;
  chunks[i] = !given          ? tally<T, false, true>(z + first, t, k, m)
              : smoothing > 0 ? tally<T, true, true>(z + first, t, k, m)
                              : tally<T, true, false>(z + first, t, k, m);
}

// What a row's tally says of y = a t + b.
struct Aim {
  double a, b;
  double total, rest;  // Y; without a largest logit that has none beside it
  double away;         // sum y (m - z)
  double at_label;     // of y, what the label has by a
};

// Of a row with a distribution.
inline Aim aim_of(const Tally& t, double smoothing) {
  Aim x{1 - smoothing, smoothing > 0 ? smoothing / t.left : 0, smoothing, 0, 0, 0};
  x.total += x.a * t.given, x.rest = x.a * t.rest, x.away = x.a * t.away;
  if (smoothing > 0) x.rest += x.b * (t.left - 1), x.away += x.b * t.left_away;
  return x;
}

// Of a row with a label, whose logit is z.
inline Aim aim_of(Tally t, double smoothing, double z, double m) {
  t.given = 1, t.rest = z != m, t.away = m - z;
  Aim x = aim_of(t, smoothing);
  x.total = 1, x.at_label = x.a;
  return x;
}

// Where a gradient of this scale (not negative) stays clear of the ends of the range of float.
inline bool moderate(double scale) { return scale == 0 || (scale > 0x1p-30 && scale < 0x1p20); }

// Where T is tiny, so may be what the products t (m - z) lose of a sum that is over T.
inline bool moderate(const Aim& x, double scale, double t) {
  return x.away < std::numeric_limits<double>::infinity() && moderate(scale * x.total) &&
         (t > 0x1p-100 || x.rest == 0);
}

// From gradients scale Y p to scale (Y p - y), the label's a aside. At a largest logit with none
// beside it, Y p - y is what the others have of y, less their Y p.
template <class T>
struct Step {
  Vec<T> given, left, top, at_top, lowest;
  // `others` is what they weigh over the largest.
  static T top_of(T m, double others) {
    return others < 1 ? m : std::numeric_limits<T>::quiet_NaN();
  }
  static T at_top_of(const Aim& x, double others, double scale) {
    return others < 1 ? T(scale * (x.rest - x.total * (others / (1 + others)))) : T(0);
  }
  Vec<T> operator()(const Vec<T>& g, const Vec<T>& z, const Vec<T>& t) const {
    const Vec<T> all = fma(t, given, add(g, unless_equal(z, lowest, left)));
    return add(unless_equal(z, top, all), sub(at_top, unless_equal(z, top, at_top)));
  }
};

template <class T>
LOGITLAB_FLATTEN void take_step(const Step<T>& step, const T* g, const T* z, const T* t, T* out,
                                int64_t k, bool stream) {
  const Vec<T> zero(T(0));
  int64_t i = 0;
  auto few = [&](int64_t n) {
    T gs[kLanes] = {}, zs[kLanes] = {}, ts[kLanes] = {};
    std::copy(g + i, g + i + n, gs);
    std::copy(z + i, z + i + n, zs);
    if (t) std::copy(t + i, t + i + n, ts);
    step(Vec<T>(gs), Vec<T>(zs), Vec<T>(ts)).put(gs);
    std::copy(gs, gs + n, out + i);
    i += n;
  };
  const auto lanes = [&] { return step(Vec<T>(g + i), Vec<T>(z + i), t ? Vec<T>(t + i) : zero); };
  if (stream) {
    const int64_t bytes = int64_t(-reinterpret_cast<uintptr_t>(out) % 64);
    few(std::min(k, bytes / int64_t(sizeof(T))));
    for (; i + kLanes <= k; i += kLanes) lanes().put_streaming(out + i);
  }
  for (; i + kLanes <= k; i += kLanes) lanes().put(out + i);
  if (i < k) few(k - i);
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
