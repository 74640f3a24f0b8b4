// Up to sixteen contiguous rows of one chunk each, step by step. What a row has once is computed
// for all rows in lanes.
#pragma once

#include "lane_rows.h"
#include "targets.h"
#include "transpose4.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// So many rows at a time that they stay in the first-level cache with their weights.
inline int chunk_rows_at_once(int64_t k) { return int(clamp<int64_t>(4096 / k, 4, kLanes)); }

// Sixteen numbers for each of sixteen rows.
template <class T>
using LaneTable = T[kLanes][kLanes];

// table[lane][row] from table[row][lane], for the first `rows` rows.
template <class T>
inline void transpose_table(const LaneTable<T>& from, int rows, LaneTable<T>& to) {
  for (int r = 0; r < rows; r += 4)
    for (int i = 0; i < kLanes; i += 4) transpose4(&from[r][i], kLanes, &to[i][r], kLanes);
}

// Adds the lanes of each row pairwise; errors only where they count.
template <class T>
inline void add_lanes(LaneTable<double>& sum, LaneTable<double>& error) {
  if constexpr (kCompensated<T>) return reduce_lanes<kLanes>(sum, error);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) add(Vec<double>(sum[i]), Vec<double>(sum[i + half])).put(sum[i]);
}

template <class T>
class ChunkRows : public LaneRows<T> {
  using Base = LaneRows<T>;
  using Base::exponent_;
  using Base::op_, Base::k_, Base::c_, Base::c_low_, Base::rounding_, Base::floor_, Base::max_;

 public:
  ChunkRows(Op op, int64_t k) : Base(op, k) {}

  // Where a row is and its result goes; of softmax and gradients, memory for the weights, which may
  // be `out`.
  struct Row {
    const T* z;
    T* out;
    T* e;
  };

  bool in_range(int r) const {
    return Base::in_range(r) &&
           (op_ != Op::loss_and_gradient || gradient_in_range(gradient_scale_[r]));
  }

  // Of the losses, not negative.
  void set_gradient_scale(int r, double scale) { gradient_scale_[r] = scale; }

  // The loss of row r at a label with logit z, after run().
  double loss(int r, T z) const {
    return log_sum_[r] + (double(max_[r]) - double(z)) / this->t_[r];
  }
  // The gradient at the label, where g is scale p.
  T label_gradient(int r, T g, T z) const {
    return logitlab::LOGITLAB_ISA::label_gradient(g, z, max_[r], others_[r], gradient_scale_[r]);
  }

  // The results of `rows` rows; afterwards in_range tells which have one, and nothing is written
  // for the others. Those of losses are scale p, without the label. Non-temporal stores where
  // `stream`.
  void run(const Row* row, int rows, bool stream) {
    find_extremes(row, rows);
    if (op_ == Op::softmax)
      sum_rows<true, false>(row, rows);
    else if (op_ == Op::loss_and_gradient)
      sum_rows<true, true>(row, rows);
    else
      sum_rows<false, true>(row, rows);
    if (op_ == Op::softmax)
      write_softmax(row, rows, stream);
    else
      write_logarithms(row, rows, stream);
  }

 private:
  // Which entries a row has beside those whose weights are above the floor and whose probabilities
  // are normal: none; excluded ones, of -inf; or any.
  enum class Entries { normal, excluded, any };

  // The largest entries, and which others the rows have. NaN is ignored.
  LOGITLAB_FLATTEN void find_extremes(const Row* row, int rows) {
    const Vec<T> lowest(-kInfinity<T>), highest(kInfinity<T>);
    for (int r = 0; r < rows; ++r) {
      const T* z = row[r].z;
      Vec<T> most[4] = {lowest, lowest, lowest, lowest};
      Vec<T> least[4] = {highest, highest, highest, highest};
      int64_t i = 0;
      for (; i + kGroupSize <= k_; i += kGroupSize)
        for (int j = 0; j < 4; ++j) {
          const Vec<T> v(z + i + j * kLanes);
          most[j] = larger(v, most[j]), least[j] = smaller(v, least[j]);
        }
      for (; i + kLanes <= k_; i += kLanes) {
        const Vec<T> v(z + i);
        most[0] = larger(v, most[0]), least[0] = smaller(v, least[0]);
      }
      if (i < k_) {
        const Vec<T> v = load_first(z + i, int(k_ - i), z[0]);
        most[1] = larger(v, most[1]), least[1] = smaller(v, least[1]);
      }
      larger(larger(most[0], most[1]), larger(most[2], most[3])).put(table_[r]);
      smaller(smaller(least[0], least[1]), smaller(least[2], least[3])).put(least_table_[r]);
    }
    transpose_table(table_, rows, lanes_);
    Vec<T> m(lanes_[0]);
    for (int i = 1; i < kLanes; ++i) m = larger(Vec<T>(lanes_[i]), m);
    this->set_max(m);
    transpose_table(least_table_, rows, lanes_);
    Vec<T> least(lanes_[0]);
    for (int i = 1; i < kLanes; ++i) least = smaller(Vec<T>(lanes_[i]), least);
    T smallest[kLanes];
    least.put(smallest);
    bool excluded[kLanes] = {};
    for (int r = 0; r < rows; ++r)
      if (smallest[r] == -kInfinity<T>) excluded[r] = true, smallest[r] = least_finite(row[r].z);
    T exponent[kLanes];
    sub(mul(Vec<T>(smallest), Vec<T>(c_)), Vec<T>(exponent_)).put(exponent);
    for (int r = 0; r < rows; ++r)
      entries_[r] = !(exponent[r] > Range<T>::narrow) ? Entries::any
                    : excluded[r]                     ? Entries::excluded
                                                      : Entries::normal;
  }

  // The smallest entry above -inf.
  T least_finite(const T* z) const {
    const Vec<T> lowest(-kInfinity<T>), highest(kInfinity<T>);
    Vec<T> least[2] = {highest, highest};
    auto take = [&](const Vec<T>& v, Vec<T>& x) { x = smaller(if_less(lowest, v, v, highest), x); };
    int64_t i = 0;
    for (; i + 2 * kLanes <= k_; i += 2 * kLanes)
      take(Vec<T>(z + i), least[0]), take(Vec<T>(z + i + kLanes), least[1]);
    for (; i < k_; i += kLanes)
      take(load_first(z + i, int(min<int64_t>(kLanes, k_ - i)), z[0]), least[0]);
    T lane[kLanes];
    smaller(least[0], least[1]).put(lane);
    for (int j = 1; j < kLanes; ++j) lane[0] = min(lane[0], lane[j]);
    return lane[0];
  }

  template <bool StoreWeights, bool ExcludeMax>
  LOGITLAB_FLATTEN void sum_rows(const Row* row, int rows) {
    for (int r = 0; r < rows; ++r)
      if (entries_[r] == Entries::normal)
        sum_row<StoreWeights, ExcludeMax, Entries::normal>(r, row[r].z, row[r].e);
      else if (entries_[r] == Entries::excluded)
        sum_row<StoreWeights, ExcludeMax, Entries::excluded>(r, row[r].z, row[r].e);
      else
        sum_row<StoreWeights, ExcludeMax, Entries::any>(r, row[r].z, row[r].e);
    transpose_table(sums_, rows, lane_sums_);
    if constexpr (kCompensated<T>) transpose_table(errors_, rows, lane_errors_);
    add_lanes<T>(lane_sums_, lane_errors_);
    this->set_sums(Vec<double>(lane_sums_[0]), Vec<double>(lane_errors_[0]));
    if constexpr (ExcludeMax) transpose_table(table_, rows, lanes_);
  }

  template <bool StoreWeights, bool ExcludeMax, Entries E>
  void sum_row(int r, const T* z, T* e) {
    const Vec<T> c(c_[r]), c_low(c_low_[r]), rounding(rounding_[r]), floor(floor_[r]), top(max_[r]),
        one(T(1)), lowest(-kInfinity<T>);
    LaneSums<T> sums;
    Vec<T> below_max(T(0));
    // What the weights of v add to the sum; `store` takes the weights.
    auto lane_weights = [&](const Vec<T>& v, auto store) {
      Vec<T> error;
      constexpr bool compensated = ExcludeMax && kCompensated<T>;
      Vec<T> x = weights_above_floor(v, c, c_low, rounding, compensated ? &error : nullptr);
      if constexpr (E == Entries::excluded) {
        x = unless_equal(v, lowest, x);
        if constexpr (compensated) error = unless_equal(v, lowest, error);
      }
      if constexpr (StoreWeights) store(x);
      if constexpr (!ExcludeMax) return x;
      if constexpr (compensated) sums.accumulate_error(unless_equal(v, top, error));
      below_max = add(below_max, unless_equal(v, top, one));
      return unless_equal(v, top, x);
    };
    auto full_weights = [&](int64_t i) {
      const Vec<T> v(z + i);
      return lane_weights(E == Entries::any ? larger(floor, v) : v,
                          [&](const Vec<T>& x) { x.put(e + i); });
    };
    int64_t i = 0;
    for (; i + kGroupSize <= k_; i += kGroupSize) {
      // The next rows come from memory while these are computed.
      for (size_t j = 0; j < kGroupSize * sizeof(T); j += 64)
        prefetch(reinterpret_cast<const char*>(z + i + kChunkSize) + j);
      const Vec<T> a = full_weights(i), b = full_weights(i + kLanes);
      const Vec<T> x = full_weights(i + 2 * kLanes), y = full_weights(i + 3 * kLanes);
      sums.accumulate(add(add(a, b), add(x, y)));
    }
    if (i < k_) {
      // Not in an array, which would be in memory.
      auto rest = [&](int64_t i) {
        if (i >= k_) return Vec<T>(T(0));
        if (i + kLanes <= k_) return full_weights(i);
        const int n = int(k_ - i);
        return lane_weights(larger(floor, load_first(z + i, n, -kInfinity<T>)),
                            [&](const Vec<T>& w) { put_first(w, e + i, n); });
      };
      const Vec<T> a = rest(i), b = rest(i + kLanes), x = rest(i + 2 * kLanes);
      sums.accumulate(add(add(a, b), add(x, rest(i + 3 * kLanes))));
    }
    sums.put(sums_[r], errors_[r]);
    if constexpr (ExcludeMax) below_max.put(table_[r]);
  }

  LOGITLAB_FLATTEN void write_softmax(const Row* row, int rows, bool stream) {
    Vec<T> reciprocal, reciprocal_low;
    this->reciprocals(reciprocal, reciprocal_low);
    write_normalized(row, rows, stream, reciprocal, reciprocal_low);
  }

  // e factor, of each row.
  void write_normalized(const Row* row, int rows, bool stream, const Vec<T>& factors,
                        const Vec<T>& factors_low) const {
    T factor[kLanes], factor_low[kLanes], min_weight[kLanes];
    factors.put(factor), factors_low.put(factor_low);
    div(Vec<T>(kSmallestNormal<T>), factors).put(min_weight);
    for (int r = 0; r < rows; ++r) {
      if (!in_range(r)) continue;
      const Normalizer<T> normalize{Vec<T>(factor[r]), Vec<T>(factor_low[r]),
                                    Vec<T>(min_weight[r])};
      if (entries_[r] != Entries::any)
        write_row(row[r].e, row[r].out, stream,
                  [&](const Vec<T>& e) { return normalize.normal(e); });
      else
        write_row(row[r].e, row[r].out, stream, normalize);
    }
  }

  LOGITLAB_FLATTEN void write_logarithms(const Row* row, int rows, bool stream) {
    Vec<T> below_max(T(0));
    for (int i = 0; i < kLanes; ++i) below_max = add(below_max, Vec<T>(lanes_[i]));
    // A last vector that is not full ends in entries of -inf.
    const int64_t entries = (k_ + kLanes - 1) / kLanes * kLanes;
    const typename Base::Logarithms log = this->logarithms_of_sums(entries, below_max);
    if (op_ == Op::logsumexp) {
      T result[kLanes];
      this->write_logsumexp(log, result);
      for (int r = 0; r < rows; ++r) *row[r].out = result[r];
      return;
    }
    if (op_ == Op::loss || op_ == Op::loss_and_gradient) {
      log.others.put(others_);
      add(log.high, log.low).put(log_sum_);
      if (op_ == Op::loss_and_gradient)
        write_normalized(row, rows, stream,
                         this->gradient_factors(log, Vec<double>(gradient_scale_)), Vec<T>(T(0)));
      return;
    }
    T lane[5][kLanes];
    const LogProbability<T> rows_log_p = this->log_probability(log);
    rows_log_p.m.put(lane[0]), rows_log_p.r.put(lane[1]), rows_log_p.r_low.put(lane[2]);
    rows_log_p.min_difference.put(lane[3]), rows_log_p.minus_log_sum.put(lane[4]);
    for (int r = 0; r < rows; ++r) {
      if (!in_range(r)) continue;
      const LogProbability<T> log_p{Vec<T>(lane[0][r]), Vec<T>(lane[1][r]), Vec<T>(lane[2][r]),
                                    Vec<T>(lane[3][r]), Vec<T>(lane[4][r])};
      if (entries_[r] == Entries::normal)
        write_row(row[r].z, row[r].out, stream, [&](const Vec<T>& z) { return log_p.near(z); });
      else
        write_row(row[r].z, row[r].out, stream, log_p);
    }
  }

  // out = f(x) of a row.
  template <class F>
  void write_row(const T* x, T* out, bool stream, const F& f) const {
    int64_t i = 0;
    if (stream) {
      const int64_t bytes = int64_t(-reinterpret_cast<uintptr_t>(out) % 64);
      i = min(k_, bytes / int64_t(sizeof(T)));
      if (i) put_first(f(load_first(x, int(i), T(1))), out, int(i));
      for (; i + kLanes <= k_; i += kLanes) f(Vec<T>(x + i)).put_streaming(out + i);
    }
    for (; i + kLanes <= k_; i += kLanes) f(Vec<T>(x + i)).put(out + i);
    if (i < k_) put_first(f(load_first(x + i, int(k_ - i), T(1))), out + i, int(k_ - i));
  }

  // Of a row in each line, and of a lane in each line.
  LaneTable<T> table_ = {}, least_table_ = {}, lanes_ = {};
  Entries entries_[kLanes];
  double gradient_scale_[kLanes] = {}, others_[kLanes] = {}, log_sum_[kLanes] = {};
  LaneTable<double> sums_ = {}, errors_ = {}, lane_sums_ = {}, lane_errors_ = {};
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
