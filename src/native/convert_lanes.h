// Conversions of float16 and bfloat16 to float and back, in lanes.
#pragma once

#include "half.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Sixteen numbers of the same type, or float16 or bfloat16, to lanes and back. Every NaN here is
// quiet.
inline void widen_lanes(const float* from, float* to) { Vec<float>(from).put(to); }
inline void widen_lanes(const double* from, double* to) { Vec<double>(from).put(to); }
inline void narrow_lanes(const float* from, float* to) { Vec<float>(from).put(to); }
inline void narrow_lanes(const double* from, double* to) { Vec<double>(from).put(to); }
#if defined(__AVX2__)
using PackedHalves = Register<long long, kRegisterBytes / 2>::Unaligned;
#endif
inline void widen_lanes(const Half* from, float* to) {
#if defined(__AVX2__)
  for (int i = 0; i < kLanes; i += Vec<float>::width)
    store(to + i, LOGITLAB_X86(cvtph_ps)(*reinterpret_cast<const PackedHalves*>(from + i)));
#else
  for (int i = 0; i < kLanes; ++i) to[i] = widened(from[i]);
#endif
}
inline void widen_lanes(const BFloat* from, float* to) {
  for (int i = 0; i < kLanes; ++i) to[i] = widened(from[i]);
}
inline void narrow_lanes(const float* from, Half* to) {
#if defined(__AVX2__)
  for (int i = 0; i < kLanes; i += Vec<float>::width)
    *reinterpret_cast<PackedHalves*>(to + i) =
        LOGITLAB_X86(cvtps_ph)(load(from + i), _MM_FROUND_TO_NEAREST_INT);
#else
  for (int i = 0; i < kLanes; ++i) narrow_to(from[i], to[i]);
#endif
}
inline void narrow_lanes(const float* from, BFloat* to) {
#if defined(LOGITLAB_VECTORS)
  using Words = Register<uint32_t, 4 * kLanes>;
  using Halves = Register<uint16_t, 2 * kLanes>;
  Words::Type b = *reinterpret_cast<const Words::Unaligned*>(from);
  b = (b + 0x7fff + (b >> 16 & 1)) >> 16;  // to nearest, ties to even
  *reinterpret_cast<Halves::Unaligned*>(to) = __builtin_convertvector(b, Halves::Type);
#else
  for (int i = 0; i < kLanes; ++i) narrow_to(from[i], to[i]);
#endif
}
// Converts n of them; a copy where the type is the same.
template <class S>
inline void widen_all(const S* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) widen_lanes(from + i, to + i);
  for (; i < n; ++i) to[i] = widened(from[i]);
}
template <class S>
inline void narrow_all(const float* from, S* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) narrow_lanes(from + i, to + i);
  for (; i < n; ++i) narrow_to(from[i], to[i]);
}
template <class T>
inline void copy_all(const T* from, T* to, int64_t n) {
  std::memcpy(to, from, size_t(n) * sizeof(T));
}
inline void widen_all(const float* from, float* to, int64_t n) { copy_all(from, to, n); }
inline void widen_all(const double* from, double* to, int64_t n) { copy_all(from, to, n); }
inline void narrow_all(const float* from, float* to, int64_t n) { copy_all(from, to, n); }
inline void narrow_all(const double* from, double* to, int64_t n) { copy_all(from, to, n); }

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
