// Sixteen rows that are adjacent columns of an array.
#pragma once

#include "chunk_rows.h"
#include "small_rows.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Rows of one chunk, with `step` entries from one class to the next. Each row has the sixteen sums
// of ChunkRows, so that its bits are the same.
template <class T>
class ColumnRows : public LaneRows<T> {
  using Base = LaneRows<T>;
  using Base::op_, Base::k_, Base::c_, Base::c_low_, Base::rounding_, Base::floor_, Base::max_;

 public:
  ColumnRows(Op op, int64_t k, const InverseTemperature<T>& beta) : Base(op, k) {
    for (int r = 0; r < kLanes; ++r) this->set_temperature(r, beta);
  }

  // False where a row is out of range; the results are undefined then. `e` is memory for sixteen
  // times k weights, or but for softmax, sixteen times kGroupSize. `out` of logsumexp has sixteen
  // entries.
  LOGITLAB_FLATTEN bool run(const T* z, int64_t step, T* e, T* out, int64_t out_step) {
    Vec<T> m(-kInfinity<T>);
    for (int64_t i = 0; i < k_; ++i) m = larger(Vec<T>(z + i * step), m);
    this->set_max(m);
    if (!this->all_in_range()) return false;
    if (op_ == Op::softmax) {
      sum_columns<false>(z, step, e);
      if (!this->all_in_range()) return false;
      Vec<T> factor, factor_low;
      this->reciprocals(factor, factor_low);
      normalize_lanes(e, k_, Normalizer<T>(factor, factor_low), out, out_step);
      return true;
    }
    const Vec<T> below_max = sum_columns<true>(z, step, e);
    if (!this->all_in_range()) return false;
    const typename Base::Logarithms log = this->logarithms_of_sums(k_, below_max);
    if (op_ == Op::logsumexp) {
      this->write_logsumexp(log, out);
      return this->all_in_range();
    }
    const LogProbability<T> log_p = this->log_probability(log);
    for (int64_t i = 0; i < k_; ++i) log_p(Vec<T>(z + i * step)).put(out + i * out_step);
    return true;
  }

 private:
  template <bool ExcludeMax>
  Vec<T> sum_columns(const T* first, int64_t step, T* memory) {
    const Vec<T> c(c_), c_low(c_low_), rounding(rounding_), floor(floor_), m(max_), one(T(1)),
        zero(T(0));
    Vec<T> below_max(T(0));
    LaneSums<T> sums[kLanes];
    for (int64_t i = 0; i < k_; i += kGroupSize) {
      const int64_t end = min(i + kGroupSize, k_);
      T* e = memory + (ExcludeMax ? 0 : i * kLanes);
      for (int64_t j = i; j < end; ++j) {
        const Vec<T> z(first + j * step);
        Vec<T> error;
        constexpr bool compensated = ExcludeMax && kCompensated<T>;
        Vec<T> x = weights(z, c, c_low, rounding, floor, compensated ? &error : nullptr);
        if constexpr (compensated)
          sums[(j - i) % kLanes].accumulate_error(unless_equal(z, m, error));
        if constexpr (ExcludeMax) {
          below_max = add(below_max, unless_equal(z, m, one));
          x = unless_equal(z, m, x);
        }
        x.put(e + (j - i) * kLanes);
      }
      auto weight = [&](int64_t j) { return i + j < end ? Vec<T>(e + j * kLanes) : zero; };
      for (int l = 0; l < kLanes; ++l)
        sums[l].accumulate(add(add(weight(l), weight(l + kLanes)),
                               add(weight(l + 2 * kLanes), weight(l + 3 * kLanes))));
    }
    LaneTable<double> sum, error;
    for (int l = 0; l < kLanes; ++l) sums[l].put(sum[l], error[l]);
    add_lanes<T>(sum, error);
    this->set_sums(Vec<double>(sum[0]), Vec<double>(error[0]));
    return below_max;
  }
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
