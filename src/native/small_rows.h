// Sixteen rows of few classes at once, one in each lane; the arithmetic of row_kernel.h.
#pragma once

#include "losses.h"
#include "row_kernel.h"
#include "targets.h"
#include "transpose.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The probabilities of k times sixteen weights. One branch for all of them: where results are
// subnormal here and there, the processor could not guess one for each.
template <class T>
void multiply(const T* e, int64_t k, const Products<T>& products, T* out, int64_t step) {
  bool normal = true;
  for (int64_t i = 0; i < k; ++i) normal &= products.all_normal(Vec<T>(e + i * kLanes));
  if (normal)
    for (int64_t i = 0; i < k; ++i) products.normal(Vec<T>(e + i * kLanes)).put(out + i * step);
  else
    for (int64_t i = 0; i < k; ++i) products.any(Vec<T>(e + i * kLanes)).put(out + i * step);
}

template <class T>
class Lanes {
 public:
  Lanes(Op op, int64_t k) : op_(op), k_(k) {
    for (int r = 0; r < kLanes; ++r) leave_out(r);
  }

  void set(int r, const Scale<T>& s) {
    c_[r] = s.usable ? s.c : T(0), c_low_[r] = s.usable ? s.c_low : T(0);
    r_[r] = s.r, r_low_[r] = s.r_low;
    t_[r] = s.t;
    unit_[r] = kLn2 * s.t;
    lowest_[r] = lowest_of<T>(s.t);
    reach_[r] = s.usable ? Range<T>::reach : T(0);
  }
  // Of row r of the losses, after run(): the loss; its gradient is put right at the label, which is
  // below 0 where there is a distribution.
  double loss(int r, int64_t label, T* result) const {
    const T z = label < 0 ? T(0) : z_[label * kLanes + r];
    if (op_ == Op::loss_and_gradient && label >= 0) {
      T& g = result[label * kLanes + r];
      g = more_ ? at_label_of(g, z, m_[r], rest_[r], scale_[r], aims_[r])
                : at_label_of(g, z, m_[r], rest_[r], scale_[r]);
    }
    if (more_) return aims_[r].total * log_[r] + aims_[r].away / t_[r];
    return log_[r] + (double(m_[r]) - double(z)) / t_[r];
  }
  void set_scale(int r, double scale) { scale_[r] = factor_[r] = scale; }

  // The losses are of smoothed labels, one of each of sixteen rows, or of distributions, which lie
  // as z does.
  void hold(const T* given, const int64_t* label, double smoothing) {
    more_ = true, given_ = given, label_ = label, smoothing_ = smoothing;
  }
  bool moderate(int r) const {
    return more_ ? LOGITLAB_ISA::moderate(aims_[r], scale_[r], t_[r])
                 : LOGITLAB_ISA::moderate(scale_[r]);
  }

  void leave_out(int r) {
    c_[r] = c_low_[r] = r_[r] = r_low_[r] = reach_[r] = 0;
    t_[r] = unit_[r] = 1;
    lowest_[r] = 0;
  }
  bool all_in_range() const { return all_in_range_; }
  bool in_range(int r) const {
    return std::fabs(m_[r] * c_[r]) < reach_[r] &&
           sum_[r] < std::numeric_limits<double>::infinity();
  }

  // z[i * 16 + r] is entry i of row r, and result[i * 16 + r] that of its result; afterwards
  // in_range tells which rows have one.
  LOGITLAB_FLATTEN void run(const T* z, T* result) {
    z_ = z;
    const Vec<T> c(c_), c_low(c_low_), magic(Range<T>::magic);
    Vec<T> m(-std::numeric_limits<T>::infinity());
    for (int64_t i = 0; i < k_; ++i) m = larger(entry(i), m);
    m.put(m_);
    if (more_) aim(m);
    const Vec<T> mc = mul(m, c);
    all_in_range_ = all_less(larger(mc, sub(Vec<T>(T(0)), mc)), Vec<T>(reach_));
    const Vec<T> n = sub(fma(m, c, magic), magic);
    const Vec<T> offset = sub(Vec<T>(Range<T>::magic + T(Range<T>::lift + Range<T>::bias)), n);
    Vec<T> floor;
    round_to(mul(sub(widen(n), Vec<double>(Range<T>::drop)), Vec<double>(unit_)), floor);
    if (op_ == Op::softmax)
      softmax(c, c_low, offset, floor, result);
    else if (op_ == Op::loss_and_gradient)
      logs<true>(m, n, c, c_low, offset, floor, result);
    else
      logs<false>(m, n, c, c_low, offset, floor, result);
  }

 private:
  Vec<T> entry(int64_t i) const { return Vec<T>(z_ + i * kLanes); }

  void aim(const Vec<T>& m) {
    const Vec<T> one(T(1)), lowest(-std::numeric_limits<T>::infinity());
    Sums<T> given, rest, away, left_away;
    Vec<T> left(T(0));
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<T> z = entry(i);
      if (given_) {
        const Vec<T> t(given_ + i * kLanes);
        given.add_to(t);
        rest.add_to(unless_equal(z, m, t));
        add_away(away, t, m, z);
      }
      if (smoothing_ > 0) {
        left = add(left, unless_equal(z, lowest, one));
        left_away.add_to(unless_equal(z, lowest, sub(m, z)));
      }
    }
    double sums[4][kLanes], lost[kLanes];
    T count[kLanes];
    given.put(sums[0], lost);
    rest.put(sums[1], lost);
    away.put(sums[2], lost);
    left_away.put(sums[3], lost);
    left.put(count);
    for (int r = 0; r < kLanes; ++r) {
      const Tally t{sums[0][r], sums[1][r], sums[2][r], double(count[r]), sums[3][r]};
      aims_[r] = given_ ? aim_of(t, smoothing_)
                        : aim_of(t, smoothing_, double(z_[label_[r] * kLanes + r]), double(m_[r]));
      factor_[r] = scale_[r] * aims_[r].total;
    }
  }

  void take_steps(T* result) const {
    T given[kLanes], left[kLanes], top[kLanes], at_top[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      given[r] = T(-scale_[r] * aims_[r].a), left[r] = T(-scale_[r] * aims_[r].b);
      top[r] = Step<T>::top_of(m_[r], rest_[r]);
      at_top[r] = Step<T>::at_top_of(aims_[r], rest_[r], scale_[r]);
    }
    const Step<T> step{Vec<T>(given), Vec<T>(left), Vec<T>(top), Vec<T>(at_top),
                       Vec<T>(-std::numeric_limits<T>::infinity())};
    const Vec<T> zero(T(0));
    for (int64_t i = 0; i < k_; ++i)
      step(Vec<T>(result + i * kLanes), entry(i), given_ ? Vec<T>(given_ + i * kLanes) : zero)
          .put(result + i * kLanes);
  }

  void sum(const Sums<T>& sums) {
    sums.put(sum_, low_);
    for (int r = 0; r < kLanes; ++r) low_[r] = fast_two_sum(sum_[r], low_[r]);
    all_in_range_ = all_in_range_ && all_less(Vec<double>(sum_),
                                              Vec<double>(std::numeric_limits<double>::infinity()));
  }

  // Rows whose sum without the maximum is too small for its last digit are out of range.
  void leave_faint(const Vec<double>& rest) {
    if (all_less(Vec<double>(double(k_) * Range<T>::faint), rest)) return;
    rest.put(rest_);
    for (int r = 0; r < kLanes; ++r)
      if (floor_seen(rest_[r], k_, t_[r], m_[r])) {
        sum_[r] = std::numeric_limits<double>::infinity();
        all_in_range_ = false;
      }
  }

  void softmax(const Vec<T>& c, const Vec<T>& c_low, const Vec<T>& magic, const Vec<T>& floor,
               T* result) {
    Sums<T> sums;
    for (int64_t i = 0; i < k_; i += 2) {
      Vec<T> x = weights(entry(i), c, c_low, magic, floor);
      x.put(result + i * kLanes);
      if (i + 1 < k_) {
        const Vec<T> y = weights(entry(i + 1), c, c_low, magic, floor);
        y.put(result + (i + 1) * kLanes);
        x = add(x, y);
      }
      sums.add_to(x);
    }
    sum(sums);
    const Vec<double> one(1.0), sum(sum_), high = div(one, sum);
    Vec<T> f, f_low(T(0));
    round_to(high, f);
    if constexpr (kTwoParts<T>)
      f_low =
          mul(sub(fma(sub(Vec<double>(0.0), high), sum, one), mul(high, Vec<double>(low_))), high);
    multiply(result, k_, Products<T>(f, f_low), result, kLanes);
  }

  template <bool Keep>
  void logs(const Vec<T>& m, const Vec<T>& n, const Vec<T>& c, const Vec<T>& c_low,
            const Vec<T>& magic, const Vec<T>& floor, T* result) {
    Sums<T> sums;
    Vec<T> others(T(0));
    const Vec<T> one(T(1));
    for (int64_t i = 0; i < k_; ++i) {
      Vec<T> lost;
      const Vec<T> z = entry(i),
                   e = weights(z, c, c_low, magic, floor, kTwoParts<T> ? &lost : nullptr);
      if constexpr (Keep) e.put(result + i * kLanes);
      if constexpr (kTwoParts<T>) sums.add_lost(unless_equal(z, m, lost));
      sums.add_to(unless_equal(z, m, e));
      others = add(others, unless_equal(z, m, one));
    }
    sum(sums);
    // The largest entry weighs 2^(m c - N); the ties of it but one count whole.
    const Vec<double> x = widen(m);
    Vec<double> top_low;
    const Vec<double> top = exp2_lanes(add(fms(x, widen(c), widen(n)), mul(x, widen(c_low))),
                                       kTwoParts<T> ? &top_low : nullptr);
    const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
    const Vec<double> ties = sub(Vec<double>(double(k_ - 1)), widen(others));
    const Vec<double> sum = mul(Vec<double>(sum_), Vec<double>(unlift)), share = div(sum, top);
    const Vec<double> rest = add(ties, share);
    Vec<double> rest_low(0.0), log_low;
    if constexpr (kTwoParts<T>) {
      const Vec<double> lost = mul(Vec<double>(low_), Vec<double>(unlift));
      const Vec<double> zero(0.0), part = sub(rest, ties);
      Vec<double> low = fma(sub(zero, share), top, sum);
      low = div(add(low, sub(lost, mul(share, top_low))), top);
      // rest = ties + share, and what that loses.
      rest_low = add(low, add(sub(ties, sub(rest, part)), sub(share, part)));
    }
    const Vec<double> log = log1p_lanes(rest, rest_low, log_low);
    Vec<T> rounded;
    if (op_ == Op::loss || op_ == Op::loss_and_gradient) {
      rest.put(rest_);
      add(log, log_low).put(log_);
      if constexpr (Keep) {
        const Vec<double> whole = mul(top, add(Vec<double>(1.0), rest));
        round_to(div(mul(Vec<double>(factor_), Vec<double>(unlift)), whole), rounded);
        multiply(result, k_, Products<T>(rounded), result, kLanes);
        if (more_) take_steps(result);
      }
      return;
    }
    if (op_ == Op::logsumexp) {
      if constexpr (Range<T>::faint > 0) leave_faint(rest);
      const Vec<double> t(t_), far = mul(t, log), total = add(x, far), back = sub(total, x);
      const Vec<double> left = add(fms(t, log, far), mul(t, log_low));
      round_to(add(total, add(left, add(sub(x, sub(total, back)), sub(far, back)))), rounded);
      rounded.put(result);
      return;
    }
    round_to(sub(Vec<double>(0.0), add(log, log_low)), rounded);
    const Logs<T> logs{m, Vec<T>(r_), Vec<T>(r_low_), Vec<T>(lowest_), rounded};
    for (int64_t i = 0; i < k_; ++i) logs(entry(i)).put(result + i * kLanes);
  }

  const Op op_;
  const int64_t k_;
  const T* z_ = nullptr;
  T c_[kLanes], c_low_[kLanes], r_[kLanes], r_low_[kLanes], lowest_[kLanes], reach_[kLanes];
  T m_[kLanes];
  double t_[kLanes], unit_[kLanes], sum_[kLanes], low_[kLanes], rest_[kLanes], log_[kLanes];
  double scale_[kLanes] = {}, factor_[kLanes] = {};  // of the gradient; with Y
  bool more_ = false;
  const T* given_ = nullptr;
  const int64_t* label_ = nullptr;
  double smoothing_ = 0;
  Aim aims_[kLanes];
  bool all_in_range_ = false;
};

// Sixteen rows of one chunk that lie side by side as columns, `step` entries from one class to the
// next. Each keeps the sixteen sums that it would have as a row, so its bits are those of Row.
template <class T>
class Columns {
 public:
  // `e` is room for sixteen times k weights.
  Columns(Op op, const T* z, int64_t step, int64_t k, const Scale<T>& s, T* e)
      : op_(op), z_(z), step_(step), k_(k), s_(s), e_(e) {}

  // False where a row is out of range; nothing has been written then.
  LOGITLAB_FLATTEN bool weigh() {
    Vec<T> m(-std::numeric_limits<T>::infinity());
    for (int64_t i = 0; i < k_; ++i) m = larger(Vec<T>(z_ + i * step_), m);
    m.put(m_);
    const Vec<T> c(s_.c), mc = mul(m, c);
    if (!all_less(larger(mc, sub(Vec<T>(T(0)), mc)), Vec<T>(Range<T>::reach))) return false;
    T magic[kLanes], floor[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      const Frame<T> frame = frame_of(m_[r], s_);
      n_[r] = frame.n, magic[r] = frame.magic, floor[r] = frame.floor;
    }
    if (op_ == Op::softmax)
      add_up<false>(m, Vec<T>(magic), Vec<T>(floor));
    else
      add_up<true>(m, Vec<T>(magic), Vec<T>(floor));
    return all_less(Vec<double>(sum_), Vec<double>(std::numeric_limits<double>::infinity()));
  }

  LOGITLAB_FLATTEN void softmax(T* out, int64_t out_step) const {
    T factor[kLanes], low[kLanes];
    const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
    for (int r = 0; r < kLanes; ++r) {
      const Reciprocal f(sum_[r], low_[r]);
      factor[r] = T(f.high * unlift), low[r] = T(f.low * unlift);
    }
    const Products<T> products{Vec<T>(factor), Vec<T>(low)};
    multiply(e_, k_, products, out, out_step);
  }
  LOGITLAB_FLATTEN void log_softmax(T* out, int64_t out_step) const {
    T tail[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      double low;
      const double log = log_sum_of(r).log(low);
      tail[r] = T(-(log + low));
    }
    const Logs<T> logs{Vec<T>(m_), Vec<T>(s_.r), Vec<T>(s_.r_low), Vec<T>(lowest_of<T>(s_.t)),
                       Vec<T>(tail)};
    for (int64_t i = 0; i < k_; ++i) logs(Vec<T>(z_ + i * step_)).put(out + i * out_step);
  }
  // False where a row is out of range after all.
  bool logsumexp(T* result) const {
    for (int r = 0; r < kLanes; ++r) {
      const LogSum sum = log_sum_of(r);
      if (floor_seen(sum.others, k_, s_.t, m_[r])) return false;
      double low;
      const double log = sum.log(low);
      result[r] = logsumexp_of(m_[r], s_.t, log, low);
    }
    return true;
  }

 private:
  LogSum log_sum_of(int r) const {
    const Chunk<T> chunk{m_[r], n_[r], sum_[r], low_[r], k_ - int64_t(others_[r])};
    return log_sum(&chunk, 1, m_[r], s_);
  }

  template <bool Rest>
  void add_up(const Vec<T>& m, const Vec<T>& magic, const Vec<T>& floor) {
    const Vec<T> c(s_.c), c_low(s_.c_low), one(T(1)), zero(T(0));
    Vec<T> others(T(0));
    Sums<T> sums[kLanes];
    for (int64_t i = 0; i < k_; i += kGroup) {
      const int64_t end = std::min(i + kGroup, k_);
      T* e = e_ + (op_ == Op::softmax ? i * kLanes : 0);
      for (int64_t j = i; j < end; ++j) {
        const Vec<T> z(z_ + j * step_);
        Vec<T> lost;
        constexpr bool two = Rest && kTwoParts<T>;
        Vec<T> x = weights(z, c, c_low, magic, floor, two ? &lost : nullptr);
        if constexpr (two) sums[(j - i) % kLanes].add_lost(unless_equal(z, m, lost));
        if constexpr (Rest) {
          others = add(others, unless_equal(z, m, one));
          x = unless_equal(z, m, x);
        }
        x.put(e + (j - i) * kLanes);
      }
      auto weight = [&](int64_t j) { return i + j < end ? Vec<T>(e + j * kLanes) : zero; };
      for (int l = 0; l < kLanes; ++l)
        sums[l].add_to(add(add(weight(l), weight(l + kLanes)),
                           add(weight(l + 2 * kLanes), weight(l + 3 * kLanes))));
    }
    others.put(others_);
    double lane[kLanes][kLanes], lost[kLanes][kLanes];
    for (int l = 0; l < kLanes; ++l) sums[l].put(lane[l], lost[l]);
    tree<kLanes>(lane, lost);
    const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
    for (int r = 0; r < kLanes; ++r) sum_[r] = lane[0][r] * unlift, low_[r] = lost[0][r] * unlift;
  }

  const Op op_;
  const T* z_;
  const int64_t step_, k_;
  const Scale<T>& s_;
  T* e_;
  T m_[kLanes], n_[kLanes], others_[kLanes];
  double sum_[kLanes], low_[kLanes];
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
