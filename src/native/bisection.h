// Order statistics of the entries of a row, by bisection instead of sorting.
#pragma once

#include "chunk_kernel.h"
#include "pack.h"
#include "sorting.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Bisection leaves at most so many entries, which are then sorted.
constexpr int64_t kSorted = 32;

// The position of a number among all of its type, without NaN.
template <class T>
typename Bits<T>::Word position_of(T x) {
  using Word = typename Bits<T>::Word;
  constexpr Word sign = Word(1) << (8 * sizeof(T) - 1);
  const Word bits = bit_cast<Word>(x);
  return bits & sign ? ~bits : bits | sign;
}
template <class T>
T number_at(typename Bits<T>::Word position) {
  using Word = typename Bits<T>::Word;
  constexpr Word sign = Word(1) << (8 * sizeof(T) - 1);
  return bit_cast<T>(position & sign ? Word(position ^ sign) : Word(~position));
}

// The values low <= x < high that a bisection has left.
template <class T>
class Bisection {
 public:
  Bisection(T low, T high) : low_(low), high_(high) {}
  // Sets `middle` to a value between both; false where there is none.
  bool halve(T& middle) {
    middle = low_ / 2 + high_ / 2;
    // The middle position halves any range within as many steps as T has bits.
    if (++steps_ > kValueSteps || !is_between(middle))
      middle = number_at<T>(position_of(low_) + (position_of(high_) - position_of(low_)) / 2);
    return is_between(middle);
  }
  void set_low(T x) { low_ = x; }
  void set_high(T x) { high_ = x; }
  T low() const { return low_; }
  T high() const { return high_; }

 private:
  static constexpr int kValueSteps = 16;
  bool is_between(T x) const { return low_ < x && x < high_; }
  T low_, high_;
  int steps_ = 0;
};

// So many entries of a longer row, in groups at even distances.
constexpr int64_t kSample = 4096;
template <class T>
void copy_sample(const T* z, int64_t k, T* sample) {
  constexpr int64_t blocks = kSample / kLanes;
  for (int64_t b = 0; b < blocks; ++b)
    copy(z + b * (k - kLanes) / (blocks - 1), kLanes, sample + b * kLanes);
}

// Makes `values` the entries from low to high; fast where these are few. If low is -inf, more of it
// may follow.
template <class T>
void collect_between(const T* z, int64_t k, T low, T high, Buffer<T>& values) {
  const Vec<T> lows(low);
  T last[kLanes];
  int64_t n = 0;
  // Every entry is read once, as another thread of Python may change the row.
  const auto use = [&](const Vec<T>& v) {
    if (all_less(v, lows)) return;
    if (values.size() < n + kLanes) values.resize(2 * n + kLanes);
    n += pack_between(v, low, high, values.data() + n);
  };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) use(Vec<T>(z + i));
  copy_padded(z + i, k - i, last, kLanes, -kInfinity<T>);
  use(Vec<T>(last));
  values.resize(n);
}

template <class T>
LOGITLAB_FLATTEN int64_t count_at_least(const T* z, int64_t k, T x) {
  const Vec<T> bound(x);
  int64_t below = 0, i = 0;
  for (; i + kLanes <= k; i += kLanes) below += count_less(Vec<T>(z + i), bound);
  for (; i < k; ++i) below += z[i] < x;
  return k - below;
}

// The n-th largest of k > n >= 1 entries, of which m is the largest. Overwrites `values`.
template <class T>
T nth_largest_of(const T* z, int64_t k, int64_t n, T m, Buffer<T>& values) {
  int64_t at_least_high = count_at_least(z, k, m), at_least_low = k;
  if (at_least_high >= n) return m;
  Bisection<T> range(-kInfinity<T>, m);
  T middle;
  while (at_least_low - at_least_high > kSorted && range.halve(middle)) {
    const int64_t at_least = count_at_least(z, k, middle);
    if (at_least >= n)
      range.set_low(middle), at_least_low = at_least;
    else
      range.set_high(middle), at_least_high = at_least;
  }
  collect_between(z, k, range.low(), next_after(range.high(), -kInfinity<T>), values);
  const int64_t left = n - at_least_high;
  // There are fewer where another thread of Python has changed the row.
  if (values.size() < left) return -kInfinity<T>;
  select_nth_largest(values.data(), values.size(), left);
  return values[left - 1];
}

inline double sum_of_lanes(const Vec<double>& x) {
  double lane[kLanes], sum = 0;
  x.put(lane);
  for (double part : lane) sum += part;
  return sum;
}

inline Vec<double> load_double(const float* z) { return widen(Vec<float>(z)); }
inline Vec<double> load_double(const double* z) { return Vec<double>(z); }
// The sum of four, in double.
template <class T>
Vec<double> widened_sum(const Vec<T>* x) {
  return add(add(widen(x[0]), widen(x[1])), add(widen(x[2]), widen(x[3])));
}
// The entries as numbers of another type that has all of them.
template <class To, class T>
Vec<To> load_as(const T* z) {
  if constexpr (sizeof(To) == sizeof(T))
    return Vec<To>(z);
  else
    return load_double(z);
}

// The sum of the weights of the entries that are at least x; k is a multiple of sixteen.
template <class T>
LOGITLAB_FLATTEN double mass_at_least(const T* z, const double* weight, int64_t k, T x) {
  const Vec<double> bound{double(x)}, zero(0.0);
  Vec<double> sum[2] = {zero, zero};
  int64_t i = 0;
  const auto part = [&](int64_t i) {
    return if_less(load_double(z + i), bound, zero, Vec<double>(weight + i));
  };
  for (; i + 2 * kLanes <= k; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) sum[j] = add(sum[j], part(i + j * kLanes));
  if (i < k) sum[0] = add(sum[0], part(i));
  return sum_of_lanes(add(sum[0], sum[1]));
}

// Halves, a few times, the range of the x for which `mass`, that of the entries above the range,
// plus that of the k entries that are at least x reaches `wanted`. Adds to `mass` what is then
// above the range. False where it cannot be halved.
template <class T>
bool narrow(Bisection<T>& range, const T* z, const double* weight, int64_t k, double wanted,
            double& mass) {
  const double before = mass;
  T middle;
  bool halved = true;
  for (int i = 0; i < 4 && (halved = range.halve(middle)); ++i) {
    const double sum = before + mass_at_least(z, weight, k, middle);
    if (sum >= wanted)
      range.set_low(middle);
    else
      range.set_high(middle), mass = sum;
  }
  return halved;
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
