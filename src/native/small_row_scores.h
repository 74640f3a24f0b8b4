// The entropy and the divergence of sixteen rows of few classes at once, one in each lane; the
// formulas of row_scores.h.
#pragma once

#include "lane_rows.h"
#include "row_scores.h"
#include "transpose.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
class SmallEntropies : public LaneRows<T> {
  using Base = LaneRows<T>;
  using Base::c_, Base::c_low_, Base::r_, Base::rounding_, Base::floor_, Base::t_, Base::k_;

 public:
  explicit SmallEntropies(int64_t k) : Base(Op::logsumexp, k) {}

  // z[i * 16 + r] is entry i of row r; afterwards in_range tells which rows have a result.
  LOGITLAB_FLATTEN void run(const T* z, double* out) {
    Vec<T> m(-kInfinity<T>);
    for (int64_t i = 0; i < k_; ++i) m = larger(Vec<T>(z + i * kLanes), m);
    this->set_max(m);
    const Vec<T> c(c_), c_low(c_low_), r(r_), rounding(rounding_), floor(floor_), one(T(1));
    Vec<T> most, below_max(T(0));
    round_to(mul(Vec<double>(t_), Vec<double>(2 * Range<T>::drop)), most);
    LaneSums<T> sum, sum_x;
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<T> v(z + i * kLanes);
      const Vec<T> e = unless_equal(v, m, weights(v, c, c_low, rounding, floor));
      sum.accumulate(e);
      sum_x.accumulate(mul(e, mul(smaller(sub(m, v), most), r)));
      below_max = add(below_max, unless_equal(v, m, one));
    }
    this->set_sums(sum.sum, sum.rounding_error());
    const typename Base::Logarithms log = this->logarithms_of_sums(k_, below_max);
    const Vec<double> total = mul(log.top, add(Vec<double>(1.0), log.others));
    const Vec<double> x = mul(add(sum_x.sum, sum_x.rounding_error()), Vec<double>(kUnlift<T>));
    add(add(log.high, log.low), div(x, total)).put(out);
  }
};

// Sixteen distributions in double.
template <class T>
class SmallDistributions : public LaneRows<double> {
 public:
  explicit SmallDistributions(int64_t k) : LaneRows<double>(Op::softmax, k) {}

  // Sums the weights of z[i * 16 + r], entry i of row r.
  void sum_weights(const T* z) {
    Vec<double> m(-kInfinity<double>);
    for (int64_t i = 0; i < k_; ++i) m = larger(widen(Vec<T>(z + i * kLanes)), m);
    this->set_max(m);
    const Vec<double> c(c_), c_low(c_low_), rounding(rounding_), floor(floor_),
        lowest(-kInfinity<double>);
    LaneSums<double> sums;
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<double> v = widen(Vec<T>(z + i * kLanes));
      const Vec<double> w = unless_equal(v, lowest, weights(v, c, c_low, rounding, floor));
      w.put(weights_[i]);
      if constexpr (kCompensated<T>)
        sums.accumulate(w);
      else
        sums.sum = add(sums.sum, w);
    }
    this->set_sums(sums.sum, sums.error);
    factor_ = div(Vec<double>(1.0), Vec<double>(sum_));
  }

  Vec<double> probability(int64_t i) const { return mul(Vec<double>(weights_[i]), factor_); }
  Vec<double> sums() const { return Vec<double>(sum_); }
  Vec<double> exponents() const { return Vec<double>(exponent_); }
  // x/T.
  Vec<double> divide(const Vec<double>& x, const Vec<double>& addend) const {
    return fma(x, Vec<double>(r_), fma(x, Vec<double>(r_low_), addend));
  }

 private:
  double weights_[kMaxSmallRow][kLanes];
  Vec<double> factor_{0.0};
};

template <class T>
class SmallDivergences {
 public:
  explicit SmallDivergences(int64_t k) : k_(k), p_(k), q_(k) {}

  void set_temperature(int r, const InverseTemperature<double>& beta) {
    p_.set_temperature(r, beta), q_.set_temperature(r, beta);
  }
  bool in_range(int r) const { return p_.in_range(r) && q_.in_range(r); }

  // As SmallEntropies::run.
  LOGITLAB_FLATTEN void run(const T* z, const T* other, double* out) {
    p_.sum_weights(z), q_.sum_weights(other);
    const Vec<double> minus_log = minus_log_ratio(z, other);
    LaneSums<double> total;
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<double> a = widen(Vec<T>(z + i * kLanes)), b = widen(Vec<T>(other + i * kLanes));
      accumulate_score<T>(total, divergence_term<T>(a, p_.probability(i), q_.probability(i),
                                                    p_.divide(logit_difference(a, b), minus_log)));
    }
    add(total.sum, total.error).put(out);
  }

 private:
  // -log(sum_q / sum_p), so that the logarithm of the ratio of probabilities is the difference of
  // the logits plus it.
  Vec<double> minus_log_ratio(const T* z, const T* other) const {
    const Vec<double> zero(0.0), one(1.0), limit(kCloseLogits);
    Vec<double> largest_delta(0.0);
    LaneSums<double> mean;
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<double> x =
          logit_difference(widen(Vec<T>(z + i * kLanes)), widen(Vec<T>(other + i * kLanes)));
      const Vec<double> delta = p_.divide(x, zero);
      largest_delta = larger(larger(delta, sub(zero, delta)), largest_delta);
      if (all_less(limit, largest_delta)) break;
      accumulate_score<T>(mean, mul(p_.probability(i), add(delta, expm1_minus_x<T>(delta))));
    }
    const Vec<double> p = p_.sums(), q = q_.sums();
    const Vec<double> log = log1p_lanes(sub(div(larger(p, q), smaller(p, q)), one));
    const Vec<double> shift = sub(q_.exponents(), p_.exponents());
    const Vec<double> log_ratio =
        fma(shift, Vec<double>(kLn2),
            fma(shift, Vec<double>(kLn2Low), if_less(q, p, sub(zero, log), log)));
    return sub(zero,
               if_less(largest_delta, limit, log1p_lanes(add(mean.sum, mean.error)), log_ratio));
  }

  const int64_t k_;
  SmallDistributions<T> p_, q_;
};

// The scores of rows first to last - 1.
template <class T>
void scores_of_small_rows(const ScoreArgs& args, int64_t first, int64_t last) {
  const int64_t k = args.k;
  const T *z = static_cast<const T*>(args.z), *other = static_cast<const T*>(args.other);
  T lanes[kMaxSmallRow * kLanes] = {}, other_lanes[kMaxSmallRow * kLanes] = {};
  SmallEntropies<T> entropies(k);
  SmallDivergences<T> divergences(k);
  double score[kLanes], t = kNaN<double>;
  InverseTemperature<T> beta{};
  InverseTemperature<double> wide_beta{};
  for (int64_t r = first; r < last; r += kLanes) {
    const int n = int(min<int64_t>(kLanes, last - r));
    for (int i = 0; i < n; ++i) {
      if (args.t[r + i] != t) {
        t = args.t[r + i];
        beta = inverse_temperature<T>(t), wide_beta = inverse_temperature<double>(t);
      }
      if (other)
        divergences.set_temperature(i, wide_beta);
      else
        entropies.set_temperature(i, beta);
    }
    transpose_rows_in(z + r * k, k, n, lanes);
    if (other) {
      transpose_rows_in(other + r * k, k, n, other_lanes);
      divergences.run(lanes, other_lanes, score);
    } else {
      entropies.run(lanes, score);
    }
    for (int i = 0; i < n; ++i) {
      const bool in_range = other ? divergences.in_range(i) : entropies.in_range(i);
      args.out[r + i] = in_range ? score[i] : kNaN<double>;
    }
  }
}

template <class T>
void scores_of_type(const ScoreArgs& args, int64_t first, int64_t last) {
  if (args.k <= kMaxSmallRow)
    scores_of_small_rows<T>(args, first, last);
  else
    scores_of_rows<T>(args, first, last);
}

void compute_scores(const ScoreArgs& args, int64_t first, int64_t last) {
  if (args.kind == kFloat32)
    scores_of_type<float>(args, first, last);
  else
    scores_of_type<double>(args, first, last);
}

}  // namespace

extern const ScoreFunction scores;
const ScoreFunction scores = compute_scores;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
