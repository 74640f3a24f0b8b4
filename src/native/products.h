// Products with the derivatives of softmax, and its Jacobian, from the probabilities of a row.
#pragma once

#include <vector>

#include "layout.h"
#include "product_lanes.h"
#include "products_args.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// slope p (v - sum p v), or slope (v - p sum v), the transposed derivative of log_softmax. Where
// one probability is close to 1, both are taken from its entry, as what is left would cancel; the
// first also where v is all but constant, and where it is huge or infinite, which counts for
// nothing beside p = 0.
template <class T>
struct ProductRow {
  static constexpr T kInf = std::numeric_limits<T>::infinity();
  const ProductArgs& a;
  const T *p, *v, *z;  // z may be null: then nothing is excluded but by p = 0
  bool look = false;   // at z, when writing
  T* out;
  double slope;
  bool log;
  bool apart = false;  // whether both are taken from the largest probability
  int64_t top = 0;
  T p_top = 0, v_top = 0;      // kept: out may be p or v
  double others = 0, sum = 0;  // of p and of the terms; of log apart, without those at the top

  ProductRow(const ProductArgs& args, int64_t r)
      : a(args),
        p(static_cast<const T*>(args.p) + r * args.k),
        v(static_cast<const T*>(args.v) + r * args.k),
        z(args.z ? static_cast<const T*>(args.z) + r * args.k : nullptr),
        out(static_cast<T*>(args.out) + r * args.k),
        slope(args.slope[r]),
        log(args.product == Product::log_softmax) {}

  // The last chunk is not shorter than a vector.
  static int64_t count(int64_t k) { return (k + kChunk - kLanes) / kChunk; }
  int64_t count() const { return count(a.k); }
  int64_t end(int64_t i) const { return i + 1 == count() ? a.k : (i + 1) * kChunk; }

  struct Part {
    double others, sum;
    T most;       // of p
    bool beyond;  // whether a logit is +inf; of log only
  };

  // The sums over chunk i.
  LOGITLAB_FLATTEN Part part(int64_t i) const {
    const int64_t first = i * kChunk, last = end(i);
    const Vec<T> shift(v_top), zero(T(0));
    Part found{0, 0, 0, false};
    if (log) {
      found.beyond = beyond(first, last);
      found.sum =
          sum_over(first, last, found.most, [](const Vec<T>&, const Vec<T>& w) { return w; });
      if (apart) {
        found.others =
            sum_over(first, last, found.most, [](const Vec<T>& x, const Vec<T>&) { return x; });
        if (first <= top && top < last) found.sum -= double(v_top), found.others -= double(p_top);
      }
    } else if (apart) {
      found.sum = sum_over(first, last, found.most, [&](const Vec<T>& x, const Vec<T>& w) {
        return unless_equal(x, zero, mul(x, sub(w, shift)));
      });
    } else {
      found.sum = sum_over(first, last, found.most,
                           [](const Vec<T>& x, const Vec<T>& w) { return mul(x, w); });
    }
    return found;
  }

  bool beyond(int64_t first, int64_t last) const {
    return z && largest(z + first, last - first) == kInf;
  }

  // The sum of `term`, and the largest p.
  template <class F>
  LOGITLAB_INLINE double sum_over(int64_t first, int64_t last, T& largest_p, const F& term) const {
    Sums<T> sums;
    Vec<T> most(T(0));
    int64_t j = first;
    const bool all = !log || !z;
    auto at = [&](int64_t i) {
      const Vec<T> x = term(Vec<T>(p + i), Vec<T>(v + i));
      return all ? x : unless_infinite(Vec<T>(z + i), x);
    };
    for (; j + kGroup <= last; j += kGroup) {
      most = larger(larger(larger(Vec<T>(p + j), Vec<T>(p + j + kLanes)),
                           larger(Vec<T>(p + j + 2 * kLanes), Vec<T>(p + j + 3 * kLanes))),
                    most);
      sums.add_to(add(add(at(j), at(j + kLanes)), add(at(j + 2 * kLanes), at(j + 3 * kLanes))));
    }
    for (; j + kLanes <= last; j += kLanes) most = larger(Vec<T>(p + j), most), sums.add_to(at(j));
    if (j < last) {
      // Once more the last vector, without what has been added.
      static constexpr T added[2 * kLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
      most = larger(Vec<T>(p + last - kLanes), most);
      sums.add_to(unless_equal(Vec<T>(added + (last - j)), Vec<T>(T(1)), at(last - kLanes)));
    }
    T high[kLanes];
    double lane[kLanes], lost[kLanes];
    most.put(high), sums.put(lane, lost);
    for (int half = kLanes / 2; half; half /= 2)
      for (int i = 0; i < half; ++i) {
        high[i] = std::max(high[i], high[i + half]);
        lane[i] += lane[i + half], lost[i] += lost[i + half];
      }
    largest_p = high[0];
    return lane[0] + lost[0];
  }

  // False where the parts must be taken once more, now from the largest probability.
  bool gather(const Part* parts) {
    double lost_p = 0, lost = 0;
    T most = 0;
    bool stop = false;
    others = sum = 0;
    for (int64_t i = 0; i < count(); ++i) {
      stop |= parts[i].beyond;
      others = two_sum(others, parts[i].others, lost_p);
      sum = two_sum(sum, parts[i].sum, lost);
      most = std::max(most, parts[i].most);
    }
    others += lost_p, sum += lost;
    if (!apart && (double(most) > kSaturated || (!log && !plain()))) {
      apart = true;
      top = std::find(p, p + a.k, most) - p;
      if (top == a.k) top = 0;
      p_top = p[top], v_top = v[top];
      return false;
    }
    // Only a row whose probabilities are equal, 0 or NaN can have logits of +inf. It is beyond
    // every finite change, unless T < 0 excludes that.
    look = log || (z && (sum != sum || !between(most)));
    if (!log && look) stop = beyond(0, a.k);
    if (stop && slope > 0) slope = 0;
    return true;
  }

  // Whether the mean is a modest number, and not much farther from 0 than v from it, by the first
  // entries.
  bool plain() const {
    const T mean = T(sum);
    const Vec<T> zero(T(0)), away = mul(sub(Vec<T>(v), Vec<T>(mean)), Vec<T>(T(16)));
    return std::fabs(mean) < kModest<T> &&
           !all_less(unless_equal(Vec<T>(p), zero, larger(away, sub(zero, away))),
                     Vec<T>(std::fabs(mean)));
  }

  // Whether one of the first probabilities is above 0 and below the largest.
  bool between(T most) const {
    const Vec<T> x(p), zero(T(0)), one(T(1));
    return !all_less(if_less(zero, x, if_less(x, Vec<T>(most), one, zero), zero), one);
  }

  LOGITLAB_FLATTEN void finish(int64_t i) const {
    const int64_t first = i * kChunk, last = end(i);
    const double by = in_range<T>(slope) ? slope : 1;
    const Vec<T> slopes{T(by)}, zero(T(0)), shift(v_top), mean{T(sum)};
    if (log) {
      const Vec<T> all(T(apart ? sum + double(v_top) : sum));
      each(first, last,
           [&](const Vec<T>& x, const Vec<T>& w) { return mul(slopes, sub(w, mul(x, all))); });
      if (apart && first <= top && top < last)
        out[top] = T(by * (double(v_top) * others - double(p_top) * sum));
    } else if (apart) {
      each(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        return unless_equal(x, zero, mul(mul(x, slopes), sub(sub(w, shift), mean)));
      });
    } else {
      each(first, last,
           [&](const Vec<T>& x, const Vec<T>& w) { return mul(mul(x, slopes), sub(w, mean)); });
    }
    if (by != slope) stretch(out + first, last - first, 1, slope);
  }

  template <class F>
  LOGITLAB_INLINE void each(int64_t first, int64_t last, const F& term) const {
    auto at = [&](int64_t j) {
      const Vec<T> x = term(Vec<T>(p + j), Vec<T>(v + j));
      return look && z ? unless_infinite(Vec<T>(z + j), x) : x;
    };
    // The next row comes from memory meanwhile.
    const int64_t ahead = std::min(a.k, kChunk);
    // The last vector may overlap the one before, and `out` may be p or v.
    const Vec<T> end = at(last - kLanes);
    for (int64_t j = first; j + kLanes < last; j += kLanes) {
      prefetch(reinterpret_cast<const char*>(p + j + ahead));
      prefetch(reinterpret_cast<const char*>(v + j + ahead));
      at(j).put(out + j);
    }
    end.put(out + last - kLanes);
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
          if (b.product == Product::log_softmax)
            lanes.log_softmax();
          else if (b.k < 4 || !lanes.softmax_of_plain())
            lanes.softmax();
        }
      },
      &share);
}

// Rows [first, last) of what is asked for; where p is not given it goes to `room`.
template <class T>
ProductArgs rows_of(const ProductArgs& a, int64_t first, int64_t last, Room& room,
                    int row_threads) {
  ProductArgs b = a;
  const int64_t at = first * a.k;
  b.rows = last - first, b.slope += first;
  b.v = static_cast<const T*>(a.v) + at;
  b.out = static_cast<T*>(a.out) + at;
  if (a.z) b.z = static_cast<const T*>(a.z) + at;
  if (a.p) {
    b.p = static_cast<const T*>(a.p) + at;
    return b;
  }
  const int64_t row = a.k * int64_t(sizeof(T));
  Batch x;
  x.op = Op::softmax, x.kind = a.kind, x.temperature = a.temperature, x.k = a.k;
  x.z = static_cast<const char*>(b.z);
  x.out = static_cast<char*>(room.get(size_t(b.rows * row)));
  x.z_step = x.out_step = sizeof(T);
  x.rows = x.shape[0] = b.rows, x.dims = 1;
  x.z_stride[0] = x.out_stride[0] = row, x.where_stride[0] = x.t_stride[0] = 0;
  x.row_threads = row_threads;
  run(x, 0, b.rows);
  b.p = x.out;
  return b;
}

template <class T>
void product_rows(const ProductArgs& a) {
  using Part = typename ProductRow<T>::Part;
  const int64_t chunks = ProductRow<T>::count(a.k);
  if (a.rows < a.threads && chunks >= 2 * a.threads) {
    thread_local Room room;
    const ProductArgs all = rows_of<T>(a, 0, a.rows, room, a.threads);
    std::vector<Part> parts(static_cast<size_t>(chunks));
    for (int64_t r = 0; r < a.rows; ++r) {
      struct Share {
        ProductRow<T> row;
        Part* parts;
      } share{ProductRow<T>(all, r), parts.data()};
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
    room.trim(size_t(1) << 25);
    return;
  }
  const int64_t step = std::max<int64_t>(kLanes, (1 << 14) / a.k / kLanes * kLanes);
  struct Share {
    const ProductArgs& a;
    int64_t step, chunks;
  } share{a, a.k <= kLanes ? step : std::max<int64_t>(1, (1 << 14) / a.k), chunks};
  parallel((a.rows + share.step - 1) / share.step, a.threads,
           [](const void* context, int64_t task) {
             const Share& s = *static_cast<const Share*>(context);
             thread_local Room room;
             const int64_t first = task * s.step;
             const int64_t last = std::min(s.a.rows, first + s.step);
             const ProductArgs b = rows_of<T>(s.a, first, last, room, 1);
             const int64_t k = b.k;
             if (k <= kLanes) {
               const auto *p = static_cast<const T*>(b.p), *v = static_cast<const T*>(b.v);
               const auto* z = static_cast<const T*>(b.z);
               for (int64_t r = 0; r < b.rows; r += kLanes)
                 few(p + r * k, v + r * k, z ? z + r * k : nullptr, static_cast<T*>(b.out) + r * k,
                     k, int(std::min<int64_t>(kLanes, b.rows - r)),
                     b.product == Product::log_softmax, b.slope + r);
               return;
             }
             thread_local std::vector<Part> parts;
             parts.resize(static_cast<size_t>(s.chunks));
             for (int64_t r = 0; r < b.rows; ++r) {
               ProductRow<T> row(b, r);
               do {
                 for (int64_t i = 0; i < s.chunks; ++i) parts[size_t(i)] = row.part(i);
               } while (!row.gather(parts.data()));
               for (int64_t i = 0; i < s.chunks; ++i) row.finish(i);
             }
             room.trim(size_t(1) << 25);
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
