// Elementary functions and algorithms with internal linkage. The standard library's templates have
// external linkage: built for AVX-512, one that is not inlined could replace the copy that an older
// processor calls.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T kLargest = std::numeric_limits<T>::max();
template <class T>
constexpr T kSmallestNormal = std::numeric_limits<T>::min();
template <class T>
constexpr T kEpsilon = std::numeric_limits<T>::epsilon();

inline float absolute(float x) { return ::fabsf(x); }
inline double absolute(double x) { return ::fabs(x); }
inline int64_t absolute(int64_t x) { return x < 0 ? -x : x; }
inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return ::fma(a, b, c); }
inline float next_after(float x, float to) { return ::nextafterf(x, to); }
inline double next_after(double x, double to) { return ::nextafter(x, to); }
template <class T>
inline bool is_nan(T x) {
  return x != x;
}
template <class T>
inline bool is_finite(T x) {
  return absolute(x) < kInfinity<T>;
}

// Of equal arguments, and where one is NaN, the first.
template <class T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
inline T clamp(T x, T low, T high) {
  return x < low ? low : high < x ? high : x;
}

template <class T>
inline void copy(const T* from, int64_t n, T* to) {
  std::memcpy(to, from, size_t(n) * sizeof(T));
}
template <class T>
inline void fill(T* x, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) x[i] = value;
}
// n entries, fewer than `size`, and then `padding`.
template <class T>
inline void copy_padded(const T* from, int64_t n, T* to, int64_t size, T padding) {
  copy(from, n, to);
  fill(to + n, size - n, padding);
}
template <class T>
inline int64_t count(const T* x, int64_t n, T value) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) found += x[i] == value;
  return found;
}
// The first of the largest entries.
template <class T>
inline int64_t index_of_max(const T* x, int64_t n) {
  int64_t top = 0;
  for (int64_t i = 1; i < n; ++i)
    if (x[top] < x[i]) top = i;
  return top;
}
// The index of the first entry of an ascending array that is above `value`.
inline int64_t upper_bound(const double* ascending, int64_t n, double value) {
  int64_t first = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (value < ascending[first + half])
      n = half;
    else
      first += half + 1, n -= half + 1;
  }
  return first;
}
// The index of the first entry of an ascending array that is at least `value`.
inline int64_t lower_bound(const double* ascending, int64_t n, double value) {
  int64_t first = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (ascending[first + half] < value)
      first += half + 1, n -= half + 1;
    else
      n = half;
  }
  return first;
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
