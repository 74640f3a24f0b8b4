// Sixteen rows that are adjacent columns of an array.
#pragma once

#include "chunk_kernel.h"
#include "small_rows.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Rows of one chunk, with `step` entries from one class to the next. Each row has the sixteen sums
// of RowKernel, so that its bits are the same.
template <class T>
class ColumnRows {
 public:
  // `e` is memory for sixteen times k weights.
  ColumnRows(Op op, const T* z, int64_t step, int64_t k, const InverseTemperature<T>& beta, T* e)
      : op_(op), z_(z), step_(step), k_(k), beta_(beta), e_(e) {}

  // False where a row is out of range; nothing has been written then.
  LOGITLAB_FLATTEN bool sum_weights() {
    Vec<T> m(-kInfinity<T>);
    for (int64_t i = 0; i < k_; ++i) m = larger(Vec<T>(z_ + i * step_), m);
    m.put(max_);
    const Vec<T> c(beta_.c), mc = mul(m, c);
    if (!all_less(larger(mc, sub(Vec<T>(T(0)), mc)), Vec<T>(Range<T>::max_exponent))) return false;
    T rounding[kLanes], floor[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      const ExponentFrame<T> frame = exponent_frame(max_[r], beta_);
      exponent_[r] = frame.exponent, rounding[r] = frame.rounding, floor[r] = frame.floor;
    }
    if (op_ == Op::softmax)
      sum_columns<false>(m, Vec<T>(rounding), Vec<T>(floor));
    else
      sum_columns<true>(m, Vec<T>(rounding), Vec<T>(floor));
    return all_less(Vec<double>(sum_), Vec<double>(kInfinity<double>));
  }

  LOGITLAB_FLATTEN void write_softmax(T* out, int64_t out_step) const {
    T factor[kLanes], factor_low[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      const Reciprocal f(sum_[r], sum_error_[r]);
      factor[r] = T(f.high * kUnlift<T>), factor_low[r] = T(f.low * kUnlift<T>);
    }
    const Normalizer<T> normalize{Vec<T>(factor), Vec<T>(factor_low)};
    normalize_lanes(e_, k_, normalize, out, out_step);
  }
  LOGITLAB_FLATTEN void write_log_softmax(T* out, int64_t out_step) const {
    T minus_log_sum[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      double low;
      const double log = log_sum_of_row(r).log(low);
      minus_log_sum[r] = T(-(log + low));
    }
    const LogProbability<T> log_p{Vec<T>(max_), Vec<T>(beta_.r), Vec<T>(beta_.r_low),
                                  Vec<T>(min_difference<T>(beta_.t)), Vec<T>(minus_log_sum)};
    for (int64_t i = 0; i < k_; ++i) log_p(Vec<T>(z_ + i * step_)).put(out + i * out_step);
  }
  // False where a sum is too small to be accurate.
  bool logsumexp(T* result) const {
    for (int r = 0; r < kLanes; ++r) {
      const LogSum sum = log_sum_of_row(r);
      if (floor_is_visible(sum.others, k_, beta_.t, max_[r])) return false;
      double low;
      const double log = sum.log(low);
      result[r] = logsumexp_value(max_[r], beta_.t, log, low);
    }
    return true;
  }

 private:
  LogSum log_sum_of_row(int r) const {
    const ChunkSums<T> chunk{max_[r], exponent_[r], sum_[r], sum_error_[r],
                             k_ - int64_t(below_max_[r])};
    return log_sum(&chunk, 1, max_[r], beta_);
  }

  template <bool ExcludeMax>
  void sum_columns(const Vec<T>& m, const Vec<T>& rounding, const Vec<T>& floor) {
    const Vec<T> c(beta_.c), c_low(beta_.c_low), one(T(1)), zero(T(0));
    Vec<T> below_max(T(0));
    LaneSums<T> sums[kLanes];
    for (int64_t i = 0; i < k_; i += kGroupSize) {
      const int64_t end = min(i + kGroupSize, k_);
      T* e = e_ + (op_ == Op::softmax ? i * kLanes : 0);
      for (int64_t j = i; j < end; ++j) {
        const Vec<T> z(z_ + j * step_);
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
    below_max.put(below_max_);
    double sum[kLanes][kLanes], error[kLanes][kLanes];
    for (int l = 0; l < kLanes; ++l) sums[l].put(sum[l], error[l]);
    reduce_lanes<kLanes>(sum, error);
    for (int r = 0; r < kLanes; ++r)
      sum_[r] = sum[0][r] * kUnlift<T>, sum_error_[r] = error[0][r] * kUnlift<T>;
  }

  const Op op_;
  const T* z_;
  const int64_t step_, k_;
  const InverseTemperature<T>& beta_;
  T* e_;
  T max_[kLanes], exponent_[kLanes], below_max_[kLanes];
  double sum_[kLanes], sum_error_[kLanes];
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
