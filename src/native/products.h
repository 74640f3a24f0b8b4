// Products with the derivatives of softmax, and its Jacobian, from the probabilities of a row.
#pragma once

#include "product_lanes.h"
#include "products_args.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// slope p (v - sum p v), or slope (v - p sum v), the transposed derivative of log_softmax. Where one
// probability is close to 1, both are taken from its entry, as what is left would cancel; the first
// also where v of the first entry, which it is taken from to begin with, is far from what counts.
template <class T>
struct ProductRow {
  static constexpr T kInf = std::numeric_limits<T>::infinity();
  const ProductArgs& a;
  const T *p, *v, *z;  // z may be null: then nothing is excluded but by p = 0
  bool look = false;   // at z, when writing
  T* out;
  double slope;
  bool log;
  int64_t top = 0;
  bool from_top = false;       // whether both are taken from the largest probability
  T p_top, v_top;              // kept: out may be p or v
  double others = 0, sum = 0;  // of p and of the terms; from the top, without those there

  ProductRow(const ProductArgs& args, int64_t r)
      : a(args),
        p(static_cast<const T*>(args.p) + r * args.k),
        v(static_cast<const T*>(args.v) + r * args.k),
        z(args.z ? static_cast<const T*>(args.z) + r * args.k : nullptr),
        out(static_cast<T*>(args.out) + r * args.k),
        slope(args.slope[r]),
        log(args.product == Product::log_softmax),
        p_top(p[0]),
        v_top(v[0]) {}

  int64_t count() const { return (a.k + kChunk - 1) / kChunk; }

  struct Part {
    double others, sum;
    T most, least;  // of p, the least of those above 0
    T v_most;       // of the first of the largest p in each lane; not for log
    bool beyond;    // whether a logit is +inf
  };

  // The sums over chunk i.
  Part part(int64_t i) const {
    const int64_t first = i * kChunk, last = std::min(a.k, first + kChunk);
    const bool here = from_top && first <= top && top < last;
    const Vec<T> shift(v_top), zero(T(0)), low(-kInf);
    Vec<T> most(T(0)), least(low), v_most(T(0));
    Part found{0, 0, 0, kInf, 0, false};
    if (log) {
      found.beyond = beyond(first, last);
      found.sum = sum_over(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        most = larger(x, most);
        return w;
      });
      if (from_top)
        found.others = sum_over(first, last, [](const Vec<T>& x, const Vec<T>&) { return x; });
    } else {
      const auto term = [&](const Vec<T>& x, const Vec<T>& w) {
        v_most = if_less(most, x, w, v_most);
        most = larger(x, most);
        return unless_equal(x, zero, mul(x, sub(w, shift)));
      };
      if (z)
        found.sum = sum_over(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
          least = larger(if_less(zero, x, sub(zero, x), low), least);
          return term(x, w);
        });
      else
        found.sum = sum_over(first, last, term);
    }
    if (here && log) found.sum -= double(v_top), found.others -= double(p_top);
    T lane[kLanes], v_lane[kLanes];
    most.put(lane), v_most.put(v_lane);
    const T* highest = std::max_element(lane, lane + kLanes);
    found.most = *highest, found.v_most = v_lane[highest - lane];
    least.put(lane);
    found.least = -*std::max_element(lane, lane + kLanes);
    return found;
  }

  bool beyond(int64_t first, int64_t last) const {
    return z && largest(z + first, last - first) == kInf;
  }

  // Inline, so that what `term` keeps stays in registers.
  template <class F>
  LOGITLAB_INLINE double sum_over(int64_t first, int64_t last, const F& term) const {
    Sums<T> sums;
    int64_t j = first;
    const bool all = !log || !z;
    auto at = [&](int64_t i) {
      const Vec<T> x = term(Vec<T>(p + i), Vec<T>(v + i));
      return all ? x : unless_infinite(Vec<T>(z + i), x);
    };
    for (; j + kGroup <= last; j += kGroup)
      sums.add_to(add(add(at(j), at(j + kLanes)), add(at(j + 2 * kLanes), at(j + 3 * kLanes))));
    for (; j + kLanes <= last; j += kLanes) sums.add_to(at(j));
    if (j < last) {
      T rest_p[kLanes] = {}, rest_v[kLanes] = {};
      std::copy(p + j, p + last, rest_p);
      std::copy(v + j, v + last, rest_v);
      if (!all)
        for (int64_t i = j; i < last; ++i)
          if (std::fabs(z[i]) == kInf) rest_v[i - j] = 0;
      sums.add_to(term(Vec<T>(rest_p), Vec<T>(rest_v)));
    }
    double lane[kLanes], lost[kLanes];
    sums.put(lane, lost);
    for (int half = kLanes / 2; half; half /= 2)
      for (int i = 0; i < half; ++i) lane[i] += lane[i + half], lost[i] += lost[i + half];
    return lane[0] + lost[0];
  }

  // False where the parts must be taken once more, now from the largest probability.
  bool gather(const Part* parts) {
    double lost_p = 0, lost = 0;
    T most = 0, least = kInf, v_most = 0;
    bool stop = false;
    others = sum = 0;
    for (int64_t i = 0; i < count(); ++i) {
      stop |= parts[i].beyond;
      others = two_sum(others, parts[i].others, lost_p);
      sum = two_sum(sum, parts[i].sum, lost);
      if (parts[i].most > most) most = parts[i].most, v_most = parts[i].v_most;
      least = std::min(least, parts[i].least);
    }
    others += lost_p, sum += lost;
    if (!from_top && (double(most) > kSaturated || (!log && far_from(v_most)))) {
      from_top = true;
      if (log) top = std::find(p, p + a.k, most) - p, p_top = p[top], v_most = v[top];
      v_top = v_most;
      return false;
    }
    look = log || most == least || sum != sum;
    // Only a row whose probabilities are equal, 0 or NaN can have logits of +inf. It is beyond every
    // finite change, unless T < 0 excludes that.
    if (!log && look) stop = beyond(0, a.k);
    if (stop && slope > 0) slope = 0;
    return true;
  }

  // Whether the origin is so much farther from the mean than v_most that their difference loses
  // its digits. From v_most itself, the sum is no longer than what the result is made of.
  bool far_from(T v_most) const {
    return !(std::fabs(sum) <= 16 * std::fabs(double(v_most) - double(v_top) - sum));
  }

  void finish(int64_t i) const {
    const int64_t first = i * kChunk, last = std::min(a.k, first + kChunk);
    const double by = in_range<T>(slope) ? slope : 1;
    const Vec<T> slopes{T(by)}, zero(T(0)), shift(v_top), mean{T(sum)};
    if (!log) {
      each(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        return unless_equal(x, zero, mul(mul(x, slopes), sub(sub(w, shift), mean)));
      });
    } else {
      const Vec<T> all(T(from_top ? sum + double(v_top) : sum));
      each(first, last,
           [&](const Vec<T>& x, const Vec<T>& w) { return mul(slopes, sub(w, mul(x, all))); });
      if (from_top && first <= top && top < last)
        out[top] = T(by * (double(v_top) * others - double(p_top) * sum));
    }
    if (by != slope) stretch(out + first, last - first, 1, slope);
  }

  template <class F>
  LOGITLAB_INLINE void each(int64_t first, int64_t last, const F& term) const {
    auto put = [&](const T* p_, const T* v_, const T* z_, T* to) {
      const Vec<T> x = term(Vec<T>(p_), Vec<T>(v_));
      (z_ ? unless_infinite(Vec<T>(z_), x) : x).put(to);
    };
    const T* by = look ? z : nullptr;
    int64_t j = first;
    for (; j + kLanes <= last; j += kLanes) put(p + j, v + j, by ? by + j : nullptr, out + j);
    if (j < last) {
      T rest_p[kLanes] = {}, rest_v[kLanes] = {}, rest_z[kLanes] = {};
      std::copy(p + j, p + last, rest_p);
      std::copy(v + j, v + last, rest_v);
      if (by) std::copy(by + j, by + last, rest_z);
      put(rest_p, rest_v, by ? rest_z : nullptr, rest_p);
      std::copy(rest_p, rest_p + (last - j), out + j);
    }
  }
};

static_assert(kLeastColumns >= kLanes);

// Columns where they lie, sixteen at a time; the last may be some of the sixteen before again.
template <class T>
void product_columns(const ProductArgs& a) {
  struct Share {
    const ProductArgs& a;
    int64_t strips;  // of each matrix of k lines
  } share{a, std::max<int64_t>(1, a.inner / (4 * kLanes))};
  parallel(
      a.rows * share.strips, a.threads,
      [](const void* context, int64_t task) {
        const Share& s = *static_cast<const Share*>(context);
        const ProductArgs& b = s.a;
        const int64_t row = task / s.strips, strip = task % s.strips, inner = b.inner;
        const int64_t last = strip + 1 == s.strips ? inner : (strip + 1) * 4 * kLanes;
        for (int64_t c = strip * 4 * kLanes; c < last; c += kLanes) {
          c = std::min(c, last - kLanes);
          const int64_t at = row * b.k * inner + c;
          const T* z = b.z ? static_cast<const T*>(b.z) + at : nullptr;
          ProductLanes<T> lanes(static_cast<const T*>(b.p) + at, static_cast<const T*>(b.v) + at, z,
                                inner, 1, static_cast<T*>(b.out) + at, inner, b.k,
                                b.slope + row * inner + c);
          b.product == Product::log_softmax ? lanes.log_softmax() : lanes.softmax();
        }
      },
      &share);
}

template <class T>
void product_rows(const ProductArgs& a) {
  using Part = typename ProductRow<T>::Part;
  const int64_t chunks = (a.k + kChunk - 1) / kChunk;
  if (a.rows < a.threads && chunks >= 2 * a.threads) {
    std::vector<Part> parts(static_cast<size_t>(chunks));
    for (int64_t r = 0; r < a.rows; ++r) {
      struct Share {
        ProductRow<T> row;
        Part* parts;
      } share{ProductRow<T>(a, r), parts.data()};
      do {
        parallel(
            chunks, a.threads,
            [](const void* context, int64_t i) {
              const Share& s = *static_cast<const Share*>(context);
              s.parts[i] = s.row.part(i);
            },
            &share);
      } while (!share.row.gather(parts.data()));
      parallel(
          chunks, a.threads,
          [](const void* context, int64_t i) { static_cast<const Share*>(context)->row.finish(i); },
          &share);
    }
    return;
  }
  const int64_t step = std::max<int64_t>(kLanes, (1 << 14) / a.k / kLanes * kLanes);
  struct Share {
    const ProductArgs& a;
    int64_t step;
  } share{a, a.k <= kLanes ? step : std::max<int64_t>(1, (1 << 14) / a.k)};
  parallel(
      (a.rows + share.step - 1) / share.step, a.threads,
      [](const void* context, int64_t task) {
        const Share& s = *static_cast<const Share*>(context);
        const ProductArgs& b = s.a;
        const int64_t first = task * s.step, last = std::min(b.rows, first + s.step), k = b.k;
        if (k <= kLanes) {
          const auto *p = static_cast<const T*>(b.p), *v = static_cast<const T*>(b.v);
          const auto* z = static_cast<const T*>(b.z);
          for (int64_t r = first; r < last; r += kLanes)
            few(p + r * k, v + r * k, z ? z + r * k : nullptr, static_cast<T*>(b.out) + r * k, k,
                int(std::min<int64_t>(kLanes, last - r)), b.product == Product::log_softmax,
                b.slope + r);
          return;
        }
        thread_local std::vector<Part> parts;
        for (int64_t r = first; r < last; ++r) {
          ProductRow<T> row(b, r);
          parts.resize(static_cast<size_t>(row.count()));
          do {
            for (int64_t i = 0; i < row.count(); ++i) parts[size_t(i)] = row.part(i);
          } while (!row.gather(parts.data()));
          for (int64_t i = 0; i < row.count(); ++i) row.finish(i);
        }
      },
      &share);
}

// slope p_i (delta_ij - p_j): symmetric to the bit, as p_i p_j comes first.
template <class T>
void jacobian_rows(const ProductArgs& a) {
  struct Share {
    const ProductArgs& a;
    int64_t step, blocks;  // lines a task, tasks a matrix
    bool stream;
  };
  const int64_t step = std::max<int64_t>(1, (1 << 16) / a.k);
  const Share share{a, step, (a.k + step - 1) / step,
                    a.rows * a.k * a.k * int64_t(sizeof(T)) > (int64_t(1) << 24)};
  parallel(
      a.rows * share.blocks, a.threads,
      [](const void* context, int64_t task) {
        const Share& s = *static_cast<const Share*>(context);
        const int64_t k = s.a.k, r = task / s.blocks, first = task % s.blocks * s.step;
        const T* p = static_cast<const T*>(s.a.p) + r * k;
        T* out = static_cast<T*>(s.a.out) + r * k * k;
        const T slope = T(s.a.slope[r]);
        const int64_t top = std::max_element(p, p + k) - p;
        double others = 0, lost = 0;
        for (int64_t i = 0; i < k; ++i)
          if (i != top) others = two_sum(others, double(p[i]), lost);
        for (int64_t i = first; i < std::min(k, first + s.step); ++i) {
          T* line = out + i * k;
          const Vec<T> minus(-p[i]), by(slope);
          int64_t j = 0;
          if (s.stream) {
            for (; j < k && reinterpret_cast<uintptr_t>(line + j) % 64; ++j)
              line[j] = -p[i] * p[j] * slope;
            for (; j + kLanes <= k; j += kLanes)
              mul(mul(minus, Vec<T>(p + j)), by).put_streaming(line + j);
          }
          for (; j + kLanes <= k; j += kLanes) mul(mul(minus, Vec<T>(p + j)), by).put(line + j);
          for (; j < k; ++j) line[j] = -p[i] * p[j] * slope;
          line[i] = p[i] * (i == top ? T(others + lost) : T(1) - p[i]) * slope;
        }
      },
      &share);
}

}  // namespace

extern const ProductRun products;
const ProductRun products = [](const ProductArgs& a) {
  const bool single = a.kind == kFloat32;
  if (a.product == Product::jacobian)
    single ? jacobian_rows<float>(a) : jacobian_rows<double>(a);
  else if (a.inner > 1)
    single ? product_columns<float>(a) : product_columns<double>(a);
  else
    single ? product_rows<float>(a) : product_rows<double>(a);
};

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
