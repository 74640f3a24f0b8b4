// Products with the derivatives of softmax, and its Jacobian, from the probabilities.
#pragma once

#include "batch_runner.h"
#include "product_row.h"
#include "threads.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

static_assert(kMinColumns >= kLanes);

// Arrays of many adjacent columns, sixteen columns at a time; the last sixteen may overlap those
// before.
template <class T>
void column_products(const ProductArgs& args) {
  constexpr int64_t strip_width = 4 * kLanes;
  const int64_t strips = max<int64_t>(1, args.inner / strip_width);  // of each (k, inner) matrix
  parallel_ranges(args.rows * strips, 1, args.threads, [&](int64_t task, int64_t) {
    const int64_t row = task / strips, strip = task % strips, inner = args.inner;
    const int64_t last = strip + 1 == strips ? inner : (strip + 1) * strip_width;
    for (int64_t column = strip * strip_width; column < last; column += kLanes) {
      column = min(column, last - kLanes);
      const int64_t first = row * args.k * inner + column;
      const T* z = args.z ? static_cast<const T*>(args.z) + first : nullptr;
      ProductLanes<T> lanes(
          static_cast<const T*>(args.p) + first, static_cast<const T*>(args.v) + first, z, inner, 1,
          static_cast<T*>(args.out) + first, inner, args.k, args.slope + row * inner + column);
      if (args.product == Product::log_softmax)
        lanes.log_softmax();
      else if (args.k < 4 || !lanes.softmax_directly())
        lanes.softmax();
    }
  });
}

// The arguments for rows [first, last); where p is null it is computed in `workspace`.
template <class T>
ProductArgs select_rows(const ProductArgs& args, int64_t first, int64_t last, Workspace& workspace,
                        int row_threads) {
  ProductArgs selected = args;
  const int64_t offset = first * args.k;
  selected.rows = last - first, selected.slope += first;
  selected.v = static_cast<const T*>(args.v) + offset;
  selected.out = static_cast<T*>(args.out) + offset;
  if (args.z) selected.z = static_cast<const T*>(args.z) + offset;
  if (args.p) {
    selected.p = static_cast<const T*>(args.p) + offset;
    return selected;
  }
  T* p = static_cast<T*>(workspace.reserve(size_t(selected.rows * args.k) * sizeof(T)));
  softmax_rows(static_cast<const T*>(selected.z), p, selected.rows, args.k, args.temperature,
               nullptr, row_threads);
  selected.p = p;
  return selected;
}

// Few long rows: the threads share the chunks of each row.
template <class T>
void long_row_products(const ProductArgs& args) {
  thread_local Workspace workspace;
  const int64_t chunks = ProductRow<T>::count(args.k);
  const ProductArgs rows = select_rows<T>(args, 0, args.rows, workspace, args.threads);
  Buffer<typename ProductRow<T>::ChunkTotals> totals;
  totals.resize(chunks);
  for (int64_t r = 0; r < rows.rows; ++r) {
    ProductRow<T> row(rows, r);
    do {
      parallel_ranges(chunks, 1, args.threads,
                      [&](int64_t i, int64_t) { totals[i] = row.sum_chunk(i); });
    } while (!row.combine_chunks(totals.data()));
    parallel_ranges(chunks, 1, args.threads, [&](int64_t i, int64_t) { row.write_chunk(i); });
  }
  workspace.release_above(size_t(1) << 25);
}

template <class T>
void row_products(const ProductArgs& args) {
  const int64_t k = args.k, chunks = ProductRow<T>::count(k);
  if (args.rows < args.threads && chunks >= 2 * args.threads) return long_row_products<T>(args);
  const int64_t step = k <= kLanes ? max<int64_t>(kLanes, (1 << 14) / k / kLanes * kLanes)
                                   : max<int64_t>(1, (1 << 14) / k);
  parallel_ranges(args.rows, step, args.threads, [&](int64_t first, int64_t last) {
    thread_local Workspace workspace;
    const ProductArgs rows = select_rows<T>(args, first, last, workspace, 1);
    if (k <= kLanes) {
      const auto *p = static_cast<const T*>(rows.p), *v = static_cast<const T*>(rows.v);
      const auto* z = static_cast<const T*>(rows.z);
      for (int64_t r = 0; r < rows.rows; r += kLanes)
        product_of_small_rows(p + r * k, v + r * k, z ? z + r * k : nullptr,
                              static_cast<T*>(rows.out) + r * k, k,
                              int(min<int64_t>(kLanes, rows.rows - r)),
                              rows.product == Product::log_softmax, rows.slope + r);
      return;
    }
    thread_local Buffer<typename ProductRow<T>::ChunkTotals> totals;
    totals.resize(chunks);
    for (int64_t r = 0; r < rows.rows; ++r) {
      ProductRow<T> row(rows, r);
      do {
        for (int64_t i = 0; i < chunks; ++i) totals[i] = row.sum_chunk(i);
      } while (!row.combine_chunks(totals.data()));
      for (int64_t i = 0; i < chunks; ++i) row.write_chunk(i);
    }
    workspace.release_above(size_t(1) << 25);
  });
}

// slope p_i (delta_ij - p_j): exactly symmetric, as p_i p_j is multiplied first.
template <class T>
void jacobians(const ProductArgs& args) {
  const int64_t k = args.k, step = max<int64_t>(1, (1 << 16) / k);
  const int64_t blocks = (k + step - 1) / step;  // of `step` rows of each matrix
  const bool stream = args.rows * k * k * int64_t(sizeof(T)) > (int64_t(1) << 24);
  parallel_ranges(args.rows * blocks, 1, args.threads, [&](int64_t task, int64_t) {
    const int64_t r = task / blocks, first = task % blocks * step;
    const T* p = static_cast<const T*>(args.p) + r * k;
    T* out = static_cast<T*>(args.out) + r * k * k;
    const T slope = T(args.slope[r]);
    const int64_t top = index_of_max(p, k);
    double others = 0, error = 0;
    for (int64_t i = 0; i < k; ++i)
      if (i != top) others = two_sum(others, double(p[i]), error);
    for (int64_t i = first; i < min(k, first + step); ++i) {
      T* row = out + i * k;
      const Vec<T> minus_p(-p[i]), slopes(slope);
      int64_t j = 0;
      if (stream) {
        for (; j < k && reinterpret_cast<uintptr_t>(row + j) % 64; ++j)
          row[j] = -p[i] * p[j] * slope;
        for (; j + kLanes <= k; j += kLanes)
          mul(mul(minus_p, Vec<T>(p + j)), slopes).put_streaming(row + j);
      }
      for (; j + kLanes <= k; j += kLanes) mul(mul(minus_p, Vec<T>(p + j)), slopes).put(row + j);
      for (; j < k; ++j) row[j] = -p[i] * p[j] * slope;
      row[i] = p[i] * (i == top ? T(others + error) : T(1) - p[i]) * slope;
    }
  });
}

template <class T>
void products_of_type(const ProductArgs& args) {
  if (args.product == Product::jacobian)
    jacobians<T>(args);
  else if (args.inner > 1)
    column_products<T>(args);
  else
    row_products<T>(args);
}

void compute_products(const ProductArgs& args) {
  args.kind == kFloat32 ? products_of_type<float>(args) : products_of_type<double>(args);
}

}  // namespace

extern const ProductFunction products;
const ProductFunction products = compute_products;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
