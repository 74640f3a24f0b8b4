// The products of one row of probabilities with a vector.
#pragma once

#include "product_lanes.h"
#include "products_args.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// slope p (v - sum p v), or slope (v - p sum v), the transposed derivative of log_softmax. Where
// one probability is close to 1, both would cancel and are computed relative to its entry. So is
// the first where v is nearly constant, or where it is very large or infinite, which has no effect
// where p = 0.
template <class T>
struct ProductRow {
  static constexpr T kInf = kInfinity<T>;
  int64_t k;
  const T *p, *v, *z;         // z may be null; then entries are excluded by p = 0 only
  bool exclude_by_z = false;  // whether results at infinite logits are 0
  T* out;
  double slope;
  bool log;
  bool relative = false;       // to the largest probability
  int64_t top = 0;             // its index
  T p_top = 0, v_top = 0;      // copies, as out may be p or v
  double others = 0, sum = 0;  // of p and of the terms; where log and relative, without the top
  ScaledProduct<T> scaled;
  bool use_scaled = false;  // where sums or differences may overflow

  ProductRow(const ProductArgs& args, int64_t r)
      : k(args.k),
        p(static_cast<const T*>(args.p) + r * args.k),
        v(static_cast<const T*>(args.v) + r * args.k),
        z(args.z ? static_cast<const T*>(args.z) + r * args.k : nullptr),
        out(static_cast<T*>(args.out) + r * args.k),
        slope(args.slope[r]),
        log(args.product == Product::log_softmax),
        scaled(p, v, z, 1, 1, k, log) {}

  // The last chunk is not shorter than a vector.
  static int64_t count(int64_t k) { return (k + kChunkSize - kLanes) / kChunkSize; }
  int64_t count() const { return count(k); }
  int64_t end(int64_t i) const { return i + 1 == count() ? k : (i + 1) * kChunkSize; }

  struct ChunkTotals {
    double others, sum;
    T max_p;
    bool infinite;  // whether a logit is +inf; of log only
  };

  // The sums over chunk i.
  LOGITLAB_FLATTEN ChunkTotals sum_chunk(int64_t i) const {
    const int64_t first = i * kChunkSize, last = end(i);
    const Vec<T> shift(v_top), zero(T(0));
    ChunkTotals found{0, 0, 0, false};
    if (log) {
      found.infinite = has_infinite_logit(first, last);
      found.sum =
          sum_over(first, last, found.max_p, [](const Vec<T>&, const Vec<T>& w) { return w; });
      if (relative) {
        found.others =
            sum_over(first, last, found.max_p, [](const Vec<T>& x, const Vec<T>&) { return x; });
        if (first <= top && top < last) found.sum -= double(v_top), found.others -= double(p_top);
      }
    } else if (relative) {
      found.sum = sum_over(first, last, found.max_p, [&](const Vec<T>& x, const Vec<T>& w) {
        return unless_equal(x, zero, mul(x, sub(w, shift)));
      });
    } else {
      found.sum = sum_over(first, last, found.max_p,
                           [](const Vec<T>& x, const Vec<T>& w) { return mul(x, w); });
    }
    return found;
  }

  bool has_infinite_logit(int64_t first, int64_t last) const {
    return z && largest(z + first, last - first) == kInf;
  }

  // The sum of `term` over chunk entries, and the largest p.
  template <class F>
  LOGITLAB_INLINE double sum_over(int64_t first, int64_t last, T& largest_p, const F& term) const {
    LaneSums<T> sums;
    Vec<T> lane_max_p(T(0));
    int64_t j = first;
    const bool include_all = !log || !z;
    auto at = [&](int64_t i) {
      const Vec<T> x = term(Vec<T>(p + i), Vec<T>(v + i));
      return include_all ? x : unless_infinite(Vec<T>(z + i), x);
    };
    for (; j + kGroupSize <= last; j += kGroupSize) {
      lane_max_p = larger(larger(larger(Vec<T>(p + j), Vec<T>(p + j + kLanes)),
                                 larger(Vec<T>(p + j + 2 * kLanes), Vec<T>(p + j + 3 * kLanes))),
                          lane_max_p);
      sums.accumulate(add(add(at(j), at(j + kLanes)), add(at(j + 2 * kLanes), at(j + 3 * kLanes))));
    }
    for (; j + kLanes <= last; j += kLanes)
      lane_max_p = larger(Vec<T>(p + j), lane_max_p), sums.accumulate(at(j));
    if (j < last) {
      // The last sixteen entries, without those already added.
      static constexpr T added[2 * kLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
      lane_max_p = larger(Vec<T>(p + last - kLanes), lane_max_p);
      sums.accumulate(unless_equal(Vec<T>(added + (last - j)), Vec<T>(T(1)), at(last - kLanes)));
    }
    T high[kLanes];
    double lane[kLanes], error[kLanes];
    lane_max_p.put(high), sums.put(lane, error);
    for (int half = kLanes / 2; half; half /= 2)
      for (int i = 0; i < half; ++i) {
        high[i] = max(high[i], high[i + half]);
        lane[i] += lane[i + half], error[i] += error[i + half];
      }
    largest_p = high[0];
    return lane[0] + error[0];
  }

  // False where the chunks must be summed again, relative to the largest probability.
  bool combine_chunks(const ChunkTotals* chunks) {
    double others_error = 0, sum_error = 0;
    T max_p = 0;
    bool infinite = false;
    others = sum = 0;
    for (int64_t i = 0; i < count(); ++i) {
      infinite |= chunks[i].infinite;
      others = two_sum(others, chunks[i].others, others_error);
      sum = two_sum(sum, chunks[i].sum, sum_error);
      max_p = max(max_p, chunks[i].max_p);
    }
    others += others_error, sum += sum_error;
    if (!relative && (double(max_p) > kDominant || (!log && !accurate_directly()))) {
      relative = true;
      for (top = 0; top < k && p[top] != max_p;) ++top;
      if (top == k) top = 0;
      p_top = p[top], v_top = v[top];
      return false;
    }
    // Only a row whose probabilities are equal, 0 or NaN can have logits of +inf. Finite changes of
    // such a row change nothing, unless T < 0 excludes +inf.
    exclude_by_z = log || (z && (is_nan(sum) || !has_smaller_probability(max_p)));
    if (!log && exclude_by_z) infinite = has_infinite_logit(0, k);
    if (infinite && slope > 0) slope = 0;
    const double largest_sum = absolute(sum) + (log ? absolute(double(v_top)) : 0);
    use_scaled = !(largest_sum < double(kMaxMean<T>)) && scaled.sum_finite();
    return true;
  }

  // Whether the mean is not too large, and not much larger than the v - mean of the first entries.
  bool accurate_directly() const {
    const T mean = T(sum);
    const Vec<T> zero(T(0)), distance = mul(sub(Vec<T>(v), Vec<T>(mean)), Vec<T>(T(16)));
    return absolute(mean) < kMaxMean<T> &&
           !all_less(unless_equal(Vec<T>(p), zero, larger(distance, sub(zero, distance))),
                     Vec<T>(absolute(mean)));
  }

  // Whether one of the first probabilities is above 0 and below the largest.
  bool has_smaller_probability(T max_p) const {
    const Vec<T> x(p), zero(T(0)), one(T(1));
    return !all_less(if_less(zero, x, if_less(x, Vec<T>(max_p), one, zero), zero), one);
  }

  LOGITLAB_FLATTEN void write_chunk(int64_t i) const {
    const int64_t first = i * kChunkSize, last = end(i);
    if (use_scaled) {
      for (int64_t j = first; j < last; ++j) out[j] = scaled.entry(j, slope);
      return;
    }
    const double finite_slope = slope_in_range<T>(slope) ? slope : 1;
    const Vec<T> slopes{T(finite_slope)}, zero(T(0)), shift(v_top), mean{T(sum)};
    if (log) {
      const Vec<T> v_sum(T(relative ? sum + double(v_top) : sum));
      write_each(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        return mul(slopes, sub(w, mul(x, v_sum)));
      });
      if (relative && first <= top && top < last)
        out[top] = T(finite_slope * (double(v_top) * others - double(p_top) * sum));
    } else if (relative) {
      write_each(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        return unless_equal(x, zero, mul(mul(x, slopes), sub(sub(w, shift), mean)));
      });
    } else {
      write_each(first, last, [&](const Vec<T>& x, const Vec<T>& w) {
        return mul(mul(x, slopes), sub(w, mean));
      });
    }
    if (finite_slope != slope) multiply_slope(out + first, last - first, 1, slope);
  }

  template <class F>
  LOGITLAB_INLINE void write_each(int64_t first, int64_t last, const F& term) const {
    auto at = [&](int64_t j) {
      const Vec<T> x = term(Vec<T>(p + j), Vec<T>(v + j));
      return exclude_by_z && z ? unless_infinite(Vec<T>(z + j), x) : x;
    };
    // Prefetches the next row.
    const int64_t ahead = min(k, kChunkSize);
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

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
