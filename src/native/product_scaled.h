// The products of a row with vectors so large that their sums or differences overflow.
#pragma once

#include "vector_math.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The formulas of product_row.h, in double. v is multiplied by a power of two first: by 2^-3 for
// softmax, whose differences are at most 4 max |v|, and by 2^-64 for log_softmax, which sums all v.
// `out` may be p or v.
template <class T>
class ScaledProduct {
 public:
  // Entry j of p and v is at j * step, that of z at j * z_step. z may be null.
  ScaledProduct(const T* p, const T* v, const T* z, int64_t step, int64_t z_step, int64_t k,
                bool log)
      : p_(p),
        v_(v),
        z_(z),
        step_(step),
        z_step_(z_step),
        k_(k),
        unit_(log ? 0x1p-64 : 0x1p-3),
        log_(log) {}

  // Computes the sums; false where an entry that is not excluded is infinite or NaN.
  bool sum_finite() {
    for (int64_t j = 0; j < k_; ++j) {
      const bool finite = is_finite(p(j)) && (excluded(j) || is_finite(double(v_[j * step_])));
      if (!finite) return false;
      if (p(j) > p(top_)) top_ = j;
    }
    double sum_error = 0, others_error = 0;
    for (int64_t j = 0; j < k_; ++j) {
      if (j == top_ || excluded(j)) continue;
      others_ = two_sum(others_, p(j), others_error);
      sum_ = two_sum(sum_, log_ ? v(j) : p(j) * (v(j) - v(top_)), sum_error);
    }
    others_ += others_error, sum_ += sum_error;
    v_top_ = v(top_);
    return true;
  }

  T entry(int64_t j, double slope) const {
    if (excluded(j)) return 0;
    double x = p(j) * ((v(j) - v_top_) - sum_);
    if (log_ && j == top_ && p(j) > 0.5)
      x = v_top_ * others_ - p(j) * sum_;
    else if (log_)
      x = v(j) - p(j) * (sum_ + v_top_);
    return x == 0 ? T(0) : T(x * slope / unit_);
  }

 private:
  double p(int64_t j) const { return double(p_[j * step_]); }
  double v(int64_t j) const { return double(v_[j * step_]) * unit_; }
  bool excluded(int64_t j) const {
    return (z_ && !is_finite(double(z_[j * z_step_]))) || (!log_ && p(j) == 0);
  }

  const T *p_, *v_, *z_;
  const int64_t step_, z_step_, k_;
  const double unit_;
  const bool log_;
  int64_t top_ = 0;  // the index of the largest probability
  double v_top_ = 0, others_ = 0, sum_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
