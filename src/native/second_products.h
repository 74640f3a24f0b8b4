// The products of the second derivatives of softmax with two vectors:
// p_i [(u_i - mean u)(v_i - mean v) - mean of these products]/T^2, with means under p. All are
// taken relative to the entry of the largest probability, so that they do not cancel in a saturated
// row.
#pragma once

#include "row_scores.h"
#include "transpose.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
LOGITLAB_FLATTEN void second_product(const T* p, const T* u, const T* v, T* out, int64_t k,
                                     double slope) {
  const int64_t top = index_of_max(p, k);
  const double at_top_u = double(u[top]), at_top_v = double(v[top]);
  const Vec<double> zero(0.0), u_top(at_top_u), v_top(at_top_v), s(slope);
  // The entries of p, and those of u and v relative to the top; 0 where p is 0.
  struct Entries {
    Vec<double> p, u, v;
  };
  auto entries = [&](int64_t i, int n) {
    const Vec<double> w = widen(load_lanes(p + i, n, T(0)));
    return Entries{w, unless_equal(w, zero, sub(widen(load_lanes(u + i, n, T(0))), u_top)),
                   unless_equal(w, zero, sub(widen(load_lanes(v + i, n, T(0))), v_top))};
  };
  Vec<double> sum_u(0.0), sum_v(0.0), sum(0.0);
  each_lanes(k, [&](int64_t i, int n) {
    const Entries e = entries(i, n);
    sum_u = fma(e.p, e.u, sum_u), sum_v = fma(e.p, e.v, sum_v);
  });
  const Vec<double> mean_u(lane_sum(sum_u)), mean_v(lane_sum(sum_v));
  // The product minus that of the top, which is mean_u mean_v.
  auto product = [&](const Entries& e) {
    return fms(sub(e.u, mean_u), sub(e.v, mean_v), mul(mean_u, mean_v));
  };
  each_lanes(k, [&](int64_t i, int n) {
    const Entries e = entries(i, n);
    sum = fma(e.p, unless_equal(e.p, zero, product(e)), sum);
  });
  const Vec<double> mean(lane_sum(sum));
  each_lanes(k, [&](int64_t i, int n) {
    const Entries e = entries(i, n);
    const Vec<double> x = mul(mul(mul(e.p, sub(product(e), mean)), s), s);
    Vec<T> result;
    round_to(unless_equal(e.p, zero, x), result);
    if (n == kLanes)
      result.put(out + i);
    else
      put_first(result, out + i, n);
  });
}

// As second_product, of sixteen rows of few classes: entry i of row r at [i * 16 + r].
template <class T>
LOGITLAB_FLATTEN void second_product_of_lanes(const T* p, const T* u, const T* v, T* out, int64_t k,
                                              const Vec<double>& s) {
  auto at = [](const T* x, int64_t i) { return widen(Vec<T>(x + i * kLanes)); };
  const Vec<double> zero(0.0);
  Vec<double> max_p(0.0), u_top(0.0), v_top(0.0);
  for (int64_t i = 0; i < k; ++i) max_p = larger(at(p, i), max_p);
  for (int64_t i = k - 1; i >= 0; --i) {
    const Vec<double> x = at(p, i), above = sub(max_p, x);
    u_top = if_less(zero, above, u_top, at(u, i)), v_top = if_less(zero, above, v_top, at(v, i));
  }
  struct Entries {
    Vec<double> p, u, v;
  };
  auto entries = [&](int64_t i) {
    const Vec<double> w = at(p, i);
    return Entries{w, unless_equal(w, zero, sub(at(u, i), u_top)),
                   unless_equal(w, zero, sub(at(v, i), v_top))};
  };
  Vec<double> mean_u(0.0), mean_v(0.0), mean(0.0);
  for (int64_t i = 0; i < k; ++i) {
    const Entries e = entries(i);
    mean_u = fma(e.p, e.u, mean_u), mean_v = fma(e.p, e.v, mean_v);
  }
  auto product = [&](const Entries& e) {
    return fms(sub(e.u, mean_u), sub(e.v, mean_v), mul(mean_u, mean_v));
  };
  for (int64_t i = 0; i < k; ++i) {
    const Entries e = entries(i);
    mean = fma(e.p, unless_equal(e.p, zero, product(e)), mean);
  }
  for (int64_t i = 0; i < k; ++i) {
    const Entries e = entries(i);
    Vec<T> result;
    round_to(unless_equal(e.p, zero, mul(mul(mul(e.p, sub(product(e), mean)), s), s)), result);
    result.put(out + i * kLanes);
  }
}

template <class T>
void second_products_of_small_rows(const SecondProductArgs& args, int64_t first, int64_t last) {
  const int64_t k = args.k;
  constexpr int64_t size = kMaxSmallRow * kLanes;
  T p[size], u[size], v[size], out[size], rows[size];
  for (int64_t r = first; r < last; r += kLanes) {
    const int n = int(min<int64_t>(kLanes, last - r));
    double slope[kLanes] = {};
    copy(args.slope + r, n, slope);
    transpose_rows_in(static_cast<const T*>(args.p) + r * k, k, n, p);
    transpose_rows_in(static_cast<const T*>(args.u) + r * k, k, n, u);
    transpose_rows_in(static_cast<const T*>(args.v) + r * k, k, n, v);
    second_product_of_lanes(p, u, v, out, k, Vec<double>(slope));
    T* result = static_cast<T*>(args.out) + r * k;
    transpose_out(out, k, n < kLanes ? rows : result);
    if (n < kLanes) copy(rows, n * k, result);
  }
}

template <class T>
void second_products_of_rows(const SecondProductArgs& args, int64_t first, int64_t last) {
  if (args.k <= kMaxSmallRow) return second_products_of_small_rows<T>(args, first, last);
  for (int64_t r = first; r < last; ++r) {
    const int64_t row = r * args.k;
    second_product(static_cast<const T*>(args.p) + row, static_cast<const T*>(args.u) + row,
                   static_cast<const T*>(args.v) + row, static_cast<T*>(args.out) + row, args.k,
                   args.slope[r]);
  }
}

void compute_second_products(const SecondProductArgs& args, int64_t first, int64_t last) {
  if (args.kind == kFloat32)
    second_products_of_rows<float>(args, first, last);
  else
    second_products_of_rows<double>(args, first, last);
}

}  // namespace

extern const SecondProductFunction second_products;
const SecondProductFunction second_products = compute_second_products;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
