// Sixteen rows of few classes at once, one in each lane; the arithmetic of rows.h.
#pragma once

#include "rows.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Rows of up to so many classes are worked on in this way, whatever their number.
constexpr int64_t kFew = 32;

inline Vec<double> widen(const Vec<double>& a) { return a; }
inline void round_to(const Vec<double>& a, Vec<float>& b) { b = narrow(a); }
inline void round_to(const Vec<double>& a, Vec<double>& b) { b = a; }

template <class T>
class Lanes {
 public:
  // z[i * 16 + r] is entry i of row r.
  Lanes(Op op, const T* z, int64_t k) : op_(op), z_(z), k_(k) {}

  void set(int r, const Scale<T>& s) {
    c_[r] = s.c, c_low_[r] = s.c_low, r_[r] = s.r, r_low_[r] = s.r_low;
    t_[r] = s.t;
    usable_[r] = s.usable;
    if (!s.usable) c_[r] = c_low_[r] = 0;
  }
  void leave_out(int r) {
    c_[r] = c_low_[r] = r_[r] = r_low_[r] = 0;
    t_[r] = 1;
    usable_[r] = false;
  }
  bool in_range(int r) const { return usable_[r]; }

  // Writes the first `rows` lanes to result[i * 16 + r]; afterwards in_range tells of which.
  void run(T* result, int rows) {
    const Vec<T> c(c_), c_low(c_low_), magic(Range<T>::magic);
    Vec<T> m(-std::numeric_limits<T>::infinity());
    for (int64_t i = 0; i < k_; ++i) m = larger(entry(i), m);
    m.put(m_);
    for (int r = 0; r < kLanes; ++r)
      usable_[r] = usable_[r] && std::fabs(m_[r] * c_[r]) < Range<T>::reach;
    const Vec<T> n = sub(fma(m, c, magic), magic);
    const Vec<T> offset = sub(Vec<T>(Range<T>::magic + T(Range<T>::lift + Range<T>::bias)), n);
    double unit[kLanes];
    for (int r = 0; r < kLanes; ++r) unit[r] = kLn2 * t_[r];
    Vec<T> floor;
    round_to(mul(sub(widen(n), Vec<double>(Range<T>::drop)), Vec<double>(unit)), floor);
    if (op_ == Op::softmax)
      softmax(c, c_low, offset, floor, result);
    else
      logs(m, n, c, c_low, offset, floor, result, rows);
  }

 private:
  Vec<T> entry(int64_t i) const { return Vec<T>(z_ + i * kLanes); }

  void sum(const Sums<T>& sums) {
    sums.put(sum_);
    for (int r = 0; r < kLanes; ++r)
      usable_[r] = usable_[r] && sum_[r] < std::numeric_limits<double>::infinity();
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
    T factor[kLanes];
    for (int r = 0; r < kLanes; ++r) factor[r] = T(1 / sum_[r]);
    const Vec<T> f(factor);
    for (int64_t i = 0; i < k_; ++i) mul(Vec<T>(result + i * kLanes), f).put(result + i * kLanes);
  }

  void logs(const Vec<T>& m, const Vec<T>& n, const Vec<T>& c, const Vec<T>& c_low,
            const Vec<T>& magic, const Vec<T>& floor, T* result, int rows) {
    Sums<T> sums;
    Vec<T> others(T(0));
    const Vec<T> one(T(1));
    for (int64_t i = 0; i < k_; ++i) {
      const Vec<T> z = entry(i);
      sums.add_to(unless_equal(z, m, weights(z, c, c_low, magic, floor)));
      others = add(others, unless_equal(z, m, one));
    }
    sum(sums);
    T n_of[kLanes], others_of[kLanes], log_of[kLanes] = {};
    n.put(n_of);
    others.put(others_of);
    const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
    for (int r = 0; r < rows; ++r) {
      if (!usable_[r]) continue;
      const double x = m_[r];
      const double top = exp2_reduced(std::fma(x, double(c_[r]), -double(n_of[r])) + x * c_low_[r]);
      const double log = log1p_of(double(k_ - 1 - int64_t(others_of[r])) + sum_[r] * unlift / top);
      log_of[r] = T(-log);
      if (op_ == Op::logsumexp) result[r] = T(x + t_[r] * log);
    }
    if (op_ == Op::logsumexp) return;
    T lowest[kLanes];
    for (int r = 0; r < kLanes; ++r) lowest[r] = lowest_of<T>(t_[r]);
    const Logs<T> logs{m, Vec<T>(r_), Vec<T>(r_low_), Vec<T>(lowest), Vec<T>(log_of)};
    for (int64_t i = 0; i < k_; ++i) logs(entry(i)).put(result + i * kLanes);
  }

  const Op op_;
  const T* z_;
  const int64_t k_;
  T c_[kLanes], c_low_[kLanes], r_[kLanes], r_low_[kLanes], m_[kLanes];
  double t_[kLanes], sum_[kLanes];
  bool usable_[kLanes];
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
