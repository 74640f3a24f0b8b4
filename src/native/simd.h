// Sixteen virtual lanes of float or double, on whatever registers this translation unit is built
// for. Every operation is an IEEE one (fused multiply-add written out), so that all instruction
// sets give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int kLanes = 16;

#if defined(__GNUC__)
#define LOGITLAB_INLINE __attribute__((always_inline)) inline
#else
#define LOGITLAB_INLINE inline
#endif
// With the sanitizers' checks in it, code inlined as a whole takes minutes to compile.
#if defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define LOGITLAB_FLATTEN __attribute__((flatten))
#else
#define LOGITLAB_FLATTEN
#endif

// A hint; any address will do.
inline void prefetch(const char* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 3);
#endif
}

template <class T>
struct Bits;
template <>
struct Bits<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23;
};
template <>
struct Bits<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52;
};

template <class To, class From>
inline To bit_cast(From x) {
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

// One register of T: `larger` and `smaller` give b where a comparison with NaN is involved.
template <class T>
struct Reg;

#if defined(__AVX512F__)

template <>
struct Reg<float> {
  static constexpr int width = 16;
  __m512 v;
};
template <>
struct Reg<double> {
  static constexpr int width = 8;
  __m512d v;
};
inline Reg<float> load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Reg<double> load(const double* p) { return {_mm512_loadu_pd(p)}; }
inline void store(float* p, Reg<float> a) { _mm512_storeu_ps(p, a.v); }
inline void store(double* p, Reg<double> a) { _mm512_storeu_pd(p, a.v); }
inline void stream(float* p, Reg<float> a) { _mm512_stream_ps(p, a.v); }
inline void stream(double* p, Reg<double> a) { _mm512_stream_pd(p, a.v); }
inline Reg<float> splat(float x) { return {_mm512_set1_ps(x)}; }
inline Reg<double> splat(double x) { return {_mm512_set1_pd(x)}; }
inline Reg<float> add(Reg<float> a, Reg<float> b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Reg<double> add(Reg<double> a, Reg<double> b) { return {_mm512_add_pd(a.v, b.v)}; }
inline Reg<float> sub(Reg<float> a, Reg<float> b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Reg<double> sub(Reg<double> a, Reg<double> b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline Reg<float> mul(Reg<float> a, Reg<float> b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Reg<double> mul(Reg<double> a, Reg<double> b) { return {_mm512_mul_pd(a.v, b.v)}; }
inline Reg<double> div(Reg<double> a, Reg<double> b) { return {_mm512_div_pd(a.v, b.v)}; }
inline Reg<double> add_bits(Reg<double> a, Reg<double> b) {
  return {
      _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a.v), _mm512_castpd_si512(b.v)))};
}
inline Reg<double> and_bits(Reg<double> a, Reg<double> b) {
  return {
      _mm512_castsi512_pd(_mm512_and_epi64(_mm512_castpd_si512(a.v), _mm512_castpd_si512(b.v)))};
}
inline Reg<double> exponent_bits(Reg<double> a) {
  return {_mm512_castsi512_pd(_mm512_srli_epi64(_mm512_castpd_si512(a.v), 52))};
}
inline Reg<float> fma(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Reg<double> fma(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {_mm512_fmadd_pd(a.v, b.v, c.v)};
}
inline Reg<float> fms(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {_mm512_fmsub_ps(a.v, b.v, c.v)};
}
inline Reg<double> fms(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {_mm512_fmsub_pd(a.v, b.v, c.v)};
}
inline Reg<float> larger(Reg<float> a, Reg<float> b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Reg<double> larger(Reg<double> a, Reg<double> b) { return {_mm512_max_pd(a.v, b.v)}; }
inline bool all_less(Reg<float> a, Reg<float> b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) == 0xffff;
}
inline bool all_less(Reg<double> a, Reg<double> b) {
  return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ) == 0xff;
}
inline int count_less(Reg<double> a, Reg<double> b) {
  return __builtin_popcount(_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ));
}
inline Reg<float> if_less(Reg<float> a, Reg<float> b, Reg<float> x, Reg<float> y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline Reg<double> if_less(Reg<double> a, Reg<double> b, Reg<double> x, Reg<double> y) {
  return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline Reg<float> unless_equal(Reg<float> a, Reg<float> b, Reg<float> x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ), x.v)};
}
inline Reg<double> unless_equal(Reg<double> a, Reg<double> b, Reg<double> x) {
  return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_UQ), x.v)};
}
inline Reg<float> pow2_of_bits(Reg<float> a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}
inline Reg<double> pow2_of_bits(Reg<double> a) {
  return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.v), 52))};
}
inline Reg<float> minus_bits_of_one(Reg<float> a) {
  return {_mm512_castsi512_ps(
      _mm512_sub_epi32(_mm512_castps_si512(a.v), _mm512_castps_si512(_mm512_set1_ps(1.0f))))};
}
inline Reg<double> minus_bits_of_one(Reg<double> a) {
  return {_mm512_castsi512_pd(
      _mm512_sub_epi64(_mm512_castpd_si512(a.v), _mm512_castpd_si512(_mm512_set1_pd(1.0))))};
}
inline void widen(Reg<float> a, Reg<double>* r) {
  r[0] = {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v))};
  r[1] = {_mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1)))};
}
inline Reg<float> narrow(const Reg<double>* a) {
  return {_mm512_castpd_ps(
      _mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(_mm512_cvtpd_ps(a[0].v))),
                         _mm256_castps_pd(_mm512_cvtpd_ps(a[1].v)), 1))};
}

#elif defined(__AVX2__)

template <>
struct Reg<float> {
  static constexpr int width = 8;
  __m256 v;
};
template <>
struct Reg<double> {
  static constexpr int width = 4;
  __m256d v;
};
inline Reg<float> load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Reg<double> load(const double* p) { return {_mm256_loadu_pd(p)}; }
inline void store(float* p, Reg<float> a) { _mm256_storeu_ps(p, a.v); }
inline void store(double* p, Reg<double> a) { _mm256_storeu_pd(p, a.v); }
inline void stream(float* p, Reg<float> a) { _mm256_stream_ps(p, a.v); }
inline void stream(double* p, Reg<double> a) { _mm256_stream_pd(p, a.v); }
inline Reg<float> splat(float x) { return {_mm256_set1_ps(x)}; }
inline Reg<double> splat(double x) { return {_mm256_set1_pd(x)}; }
inline Reg<float> add(Reg<float> a, Reg<float> b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Reg<double> add(Reg<double> a, Reg<double> b) { return {_mm256_add_pd(a.v, b.v)}; }
inline Reg<float> sub(Reg<float> a, Reg<float> b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Reg<double> sub(Reg<double> a, Reg<double> b) { return {_mm256_sub_pd(a.v, b.v)}; }
inline Reg<float> mul(Reg<float> a, Reg<float> b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Reg<double> mul(Reg<double> a, Reg<double> b) { return {_mm256_mul_pd(a.v, b.v)}; }
inline Reg<double> div(Reg<double> a, Reg<double> b) { return {_mm256_div_pd(a.v, b.v)}; }
inline Reg<double> add_bits(Reg<double> a, Reg<double> b) {
  return {
      _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a.v), _mm256_castpd_si256(b.v)))};
}
inline Reg<double> and_bits(Reg<double> a, Reg<double> b) { return {_mm256_and_pd(a.v, b.v)}; }
inline Reg<double> exponent_bits(Reg<double> a) {
  return {_mm256_castsi256_pd(_mm256_srli_epi64(_mm256_castpd_si256(a.v), 52))};
}
inline Reg<float> fma(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Reg<double> fma(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {_mm256_fmadd_pd(a.v, b.v, c.v)};
}
inline Reg<float> fms(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {_mm256_fmsub_ps(a.v, b.v, c.v)};
}
inline Reg<double> fms(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {_mm256_fmsub_pd(a.v, b.v, c.v)};
}
inline Reg<float> larger(Reg<float> a, Reg<float> b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Reg<double> larger(Reg<double> a, Reg<double> b) { return {_mm256_max_pd(a.v, b.v)}; }
inline bool all_less(Reg<float> a, Reg<float> b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)) == 0xff;
}
inline bool all_less(Reg<double> a, Reg<double> b) {
  return _mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)) == 0xf;
}
inline int count_less(Reg<double> a, Reg<double> b) {
  return __builtin_popcount(unsigned(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ))));
}
inline Reg<float> if_less(Reg<float> a, Reg<float> b, Reg<float> x, Reg<float> y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
inline Reg<double> if_less(Reg<double> a, Reg<double> b, Reg<double> x, Reg<double> y) {
  return {_mm256_blendv_pd(y.v, x.v, _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ))};
}
inline Reg<float> unless_equal(Reg<float> a, Reg<float> b, Reg<float> x) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ), x.v)};
}
inline Reg<double> unless_equal(Reg<double> a, Reg<double> b, Reg<double> x) {
  return {_mm256_and_pd(_mm256_cmp_pd(a.v, b.v, _CMP_NEQ_UQ), x.v)};
}
inline Reg<float> pow2_of_bits(Reg<float> a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23))};
}
inline Reg<double> pow2_of_bits(Reg<double> a) {
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.v), 52))};
}
inline Reg<float> minus_bits_of_one(Reg<float> a) {
  return {_mm256_castsi256_ps(
      _mm256_sub_epi32(_mm256_castps_si256(a.v), _mm256_castps_si256(_mm256_set1_ps(1.0f))))};
}
inline Reg<double> minus_bits_of_one(Reg<double> a) {
  return {_mm256_castsi256_pd(
      _mm256_sub_epi64(_mm256_castpd_si256(a.v), _mm256_castpd_si256(_mm256_set1_pd(1.0))))};
}
inline void widen(Reg<float> a, Reg<double>* r) {
  r[0] = {_mm256_cvtps_pd(_mm256_castps256_ps128(a.v))};
  r[1] = {_mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1))};
}
inline Reg<float> narrow(const Reg<double>* a) {
  return {_mm256_set_m128(_mm256_cvtpd_ps(a[1].v), _mm256_cvtpd_ps(a[0].v))};
}

#else

#if defined(__aarch64__)
template <>
struct Reg<float> {
  static constexpr int width = 4;
  float32x4_t v;
};
template <>
struct Reg<double> {
  static constexpr int width = 2;
  float64x2_t v;
};
inline Reg<float> load(const float* p) { return {vld1q_f32(p)}; }
inline Reg<double> load(const double* p) { return {vld1q_f64(p)}; }
inline void store(float* p, Reg<float> a) { vst1q_f32(p, a.v); }
inline void store(double* p, Reg<double> a) { vst1q_f64(p, a.v); }
inline Reg<float> splat(float x) { return {vdupq_n_f32(x)}; }
inline Reg<double> splat(double x) { return {vdupq_n_f64(x)}; }
inline Reg<float> add(Reg<float> a, Reg<float> b) { return {vaddq_f32(a.v, b.v)}; }
inline Reg<double> add(Reg<double> a, Reg<double> b) { return {vaddq_f64(a.v, b.v)}; }
inline Reg<float> sub(Reg<float> a, Reg<float> b) { return {vsubq_f32(a.v, b.v)}; }
inline Reg<double> sub(Reg<double> a, Reg<double> b) { return {vsubq_f64(a.v, b.v)}; }
inline Reg<float> mul(Reg<float> a, Reg<float> b) { return {vmulq_f32(a.v, b.v)}; }
inline Reg<double> mul(Reg<double> a, Reg<double> b) { return {vmulq_f64(a.v, b.v)}; }
inline Reg<double> div(Reg<double> a, Reg<double> b) { return {vdivq_f64(a.v, b.v)}; }
inline Reg<double> add_bits(Reg<double> a, Reg<double> b) {
  return {vreinterpretq_f64_s64(vaddq_s64(vreinterpretq_s64_f64(a.v), vreinterpretq_s64_f64(b.v)))};
}
inline Reg<double> and_bits(Reg<double> a, Reg<double> b) {
  return {vreinterpretq_f64_s64(vandq_s64(vreinterpretq_s64_f64(a.v), vreinterpretq_s64_f64(b.v)))};
}
inline Reg<double> exponent_bits(Reg<double> a) {
  return {vreinterpretq_f64_u64(vshrq_n_u64(vreinterpretq_u64_f64(a.v), 52))};
}
inline Reg<float> fma(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {vfmaq_f32(c.v, a.v, b.v)};
}
inline Reg<double> fma(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {vfmaq_f64(c.v, a.v, b.v)};
}
inline Reg<float> fms(Reg<float> a, Reg<float> b, Reg<float> c) {
  return {vfmaq_f32(vnegq_f32(c.v), a.v, b.v)};
}
inline Reg<double> fms(Reg<double> a, Reg<double> b, Reg<double> c) {
  return {vfmaq_f64(vnegq_f64(c.v), a.v, b.v)};
}
inline Reg<float> larger(Reg<float> a, Reg<float> b) {
  return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)};
}
inline Reg<double> larger(Reg<double> a, Reg<double> b) {
  return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)};
}
inline bool all_less(Reg<float> a, Reg<float> b) { return vminvq_u32(vcltq_f32(a.v, b.v)) != 0; }
inline bool all_less(Reg<double> a, Reg<double> b) {
  return vminvq_u32(vreinterpretq_u32_u64(vcltq_f64(a.v, b.v))) != 0;
}
inline int count_less(Reg<double> a, Reg<double> b) {
  return int(vaddvq_u64(vshrq_n_u64(vcltq_f64(a.v, b.v), 63)));
}
inline Reg<float> if_less(Reg<float> a, Reg<float> b, Reg<float> x, Reg<float> y) {
  return {vbslq_f32(vcltq_f32(a.v, b.v), x.v, y.v)};
}
inline Reg<double> if_less(Reg<double> a, Reg<double> b, Reg<double> x, Reg<double> y) {
  return {vbslq_f64(vcltq_f64(a.v, b.v), x.v, y.v)};
}
inline Reg<float> unless_equal(Reg<float> a, Reg<float> b, Reg<float> x) {
  return {vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x.v), vceqq_f32(a.v, b.v)))};
}
inline Reg<double> unless_equal(Reg<double> a, Reg<double> b, Reg<double> x) {
  return {vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(x.v), vceqq_f64(a.v, b.v)))};
}
inline Reg<float> pow2_of_bits(Reg<float> a) {
  return {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(a.v), 23))};
}
inline Reg<double> pow2_of_bits(Reg<double> a) {
  return {vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(a.v), 52))};
}
inline Reg<float> minus_bits_of_one(Reg<float> a) {
  return {vreinterpretq_f32_s32(
      vsubq_s32(vreinterpretq_s32_f32(a.v), vreinterpretq_s32_f32(vdupq_n_f32(1.0f))))};
}
inline Reg<double> minus_bits_of_one(Reg<double> a) {
  return {vreinterpretq_f64_s64(
      vsubq_s64(vreinterpretq_s64_f64(a.v), vreinterpretq_s64_f64(vdupq_n_f64(1.0))))};
}
inline void widen(Reg<float> a, Reg<double>* r) {
  r[0] = {vcvt_f64_f32(vget_low_f32(a.v))};
  r[1] = {vcvt_high_f64_f32(a.v)};
}
inline Reg<float> narrow(const Reg<double>* a) {
  return {vcvt_high_f32_f64(vcvt_f32_f64(a[0].v), a[1].v)};
}

#else  // one lane at a time: any machine

template <class T>
struct Reg {
  static constexpr int width = 1;
  T v;
};
template <class T>
inline Reg<T> load(const T* p) {
  return {*p};
}
template <class T>
inline void store(T* p, Reg<T> a) {
  *p = a.v;
}
template <class T>
inline Reg<T> splat(T x) {
  return {x};
}
template <class T>
inline Reg<T> add(Reg<T> a, Reg<T> b) {
  return {a.v + b.v};
}
template <class T>
inline Reg<T> sub(Reg<T> a, Reg<T> b) {
  return {a.v - b.v};
}
template <class T>
inline Reg<T> mul(Reg<T> a, Reg<T> b) {
  return {a.v * b.v};
}
inline Reg<double> div(Reg<double> a, Reg<double> b) { return {a.v / b.v}; }
inline Reg<double> add_bits(Reg<double> a, Reg<double> b) {
  return {bit_cast<double>(bit_cast<uint64_t>(a.v) + bit_cast<uint64_t>(b.v))};
}
inline Reg<double> and_bits(Reg<double> a, Reg<double> b) {
  return {bit_cast<double>(bit_cast<uint64_t>(a.v) & bit_cast<uint64_t>(b.v))};
}
inline Reg<double> exponent_bits(Reg<double> a) {
  return {bit_cast<double>(bit_cast<uint64_t>(a.v) >> 52)};
}
template <class T>
inline Reg<T> fma(Reg<T> a, Reg<T> b, Reg<T> c) {
  return {std::fma(a.v, b.v, c.v)};
}
template <class T>
inline Reg<T> fms(Reg<T> a, Reg<T> b, Reg<T> c) {
  return {std::fma(a.v, b.v, -c.v)};
}
template <class T>
inline Reg<T> larger(Reg<T> a, Reg<T> b) {
  return {a.v > b.v ? a.v : b.v};
}
template <class T>
inline bool all_less(Reg<T> a, Reg<T> b) {
  return a.v < b.v;
}
inline int count_less(Reg<double> a, Reg<double> b) { return a.v < b.v; }
template <class T>
inline Reg<T> if_less(Reg<T> a, Reg<T> b, Reg<T> x, Reg<T> y) {
  return {a.v < b.v ? x.v : y.v};
}
template <class T>
inline Reg<T> unless_equal(Reg<T> a, Reg<T> b, Reg<T> x) {
  return {a.v == b.v ? T(0) : x.v};
}
template <class T>
inline Reg<T> pow2_of_bits(Reg<T> a) {
  using U = std::make_unsigned_t<typename Bits<T>::Int>;
  return {bit_cast<T>(bit_cast<U>(a.v) << Bits<T>::mantissa)};
}
template <class T>
inline Reg<T> minus_bits_of_one(Reg<T> a) {
  using I = typename Bits<T>::Int;
  return {bit_cast<T>(I(bit_cast<I>(a.v) - bit_cast<I>(T(1))))};
}
inline void widen(Reg<float> a, Reg<double>* r) { r[0] = {double(a.v)}; }
inline Reg<float> narrow(const Reg<double>* a) { return {float(a[0].v)}; }

#endif
// These have no streaming stores, or none worth the trouble.
template <class T>
inline void stream(T* p, Reg<T> a) {
  store(p, a);
}
#endif

// Sixteen halves or bfloats, to and from float. What is NaN is the quiet one.
inline void widen_lanes(const Half* from, float* to) {
#if defined(__AVX512F__)
  _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__AVX2__)
  for (int i = 0; i < kLanes; i += 8)
    _mm256_storeu_ps(to + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#else
  for (int i = 0; i < kLanes; ++i) to[i] = widened(from[i]);
#endif
}
inline void widen_lanes(const BFloat* from, float* to) {
  for (int i = 0; i < kLanes; ++i) to[i] = widened(from[i]);
}
inline void narrow_lanes(const float* from, Half* to) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  for (int i = 0; i < kLanes; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; ++i) narrow_to(from[i], to[i]);
#endif
}
inline void narrow_lanes(const float* from, BFloat* to) {
#if defined(__AVX512F__)
  const __m512i b = _mm512_castps_si512(_mm512_loadu_ps(from));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
  const __m512i r = _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), odd);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
#else
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t b = bits_of(from[i]);
    to[i].bits = uint16_t((b + 0x7fff + ((b >> 16) & 1)) >> 16);
  }
#endif
}
// Any number of them; nothing to do where the type is the same.
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

// to[j * to_step + i] = from[i * from_step + j] for i, j in 0..3; written in the order of j, so
// that where rows of `to` overlap, the later one stands.
template <class T>
inline void transpose4(const T* from, int64_t from_step, T* to, int64_t to_step) {
  T x[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) x[j][i] = from[i * from_step + j];
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) to[j * to_step + i] = x[j][i];
}
#if defined(__SSE2__)
inline void transpose4(const float* from, int64_t from_step, float* to, int64_t to_step) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_step);
  __m128 c = _mm_loadu_ps(from + 2 * from_step), d = _mm_loadu_ps(from + 3 * from_step);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_step, b);
  _mm_storeu_ps(to + 2 * to_step, c);
  _mm_storeu_ps(to + 3 * to_step, d);
}
#endif
#if defined(__AVX2__)
inline void transpose4(const double* from, int64_t from_step, double* to, int64_t to_step) {
  const __m256d a = _mm256_loadu_pd(from), b = _mm256_loadu_pd(from + from_step);
  const __m256d c = _mm256_loadu_pd(from + 2 * from_step),
                d = _mm256_loadu_pd(from + 3 * from_step);
  const __m256d ab = _mm256_unpacklo_pd(a, b), cd = _mm256_unpacklo_pd(c, d);
  const __m256d ab2 = _mm256_unpackhi_pd(a, b), cd2 = _mm256_unpackhi_pd(c, d);
  _mm256_storeu_pd(to, _mm256_permute2f128_pd(ab, cd, 0x20));
  _mm256_storeu_pd(to + to_step, _mm256_permute2f128_pd(ab2, cd2, 0x20));
  _mm256_storeu_pd(to + 2 * to_step, _mm256_permute2f128_pd(ab, cd, 0x31));
  _mm256_storeu_pd(to + 3 * to_step, _mm256_permute2f128_pd(ab2, cd2, 0x31));
}
#endif

// The sixteen lanes.
template <class T>
struct Vec {
  static constexpr int regs = kLanes / Reg<T>::width;
  Reg<T> r[regs];

  Vec() = default;
  explicit Vec(T x) {
    for (auto& reg : r) reg = splat(x);
  }
  explicit Vec(const T* p) {
    for (int i = 0; i < regs; ++i) r[i] = load(p + i * Reg<T>::width);
  }
  void put(T* p) const {
    for (int i = 0; i < regs; ++i) store(p + i * Reg<T>::width, r[i]);
  }
  void put_streaming(T* p) const {
    for (int i = 0; i < regs; ++i) stream(p + i * Reg<T>::width, r[i]);
  }
};

#define LOGITLAB_UNARY(name)                                      \
  template <class T>                                              \
  inline Vec<T> name(Vec<T> a) {                                  \
    for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = name(a.r[i]); \
    return a;                                                     \
  }
#define LOGITLAB_BINARY(name)                                             \
  template <class T>                                                      \
  inline Vec<T> name(Vec<T> a, const Vec<T>& b) {                         \
    for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = name(a.r[i], b.r[i]); \
    return a;                                                             \
  }
#define LOGITLAB_TERNARY(name)                                                    \
  template <class T>                                                              \
  inline Vec<T> name(Vec<T> a, const Vec<T>& b, const Vec<T>& c) {                \
    for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = name(a.r[i], b.r[i], c.r[i]); \
    return a;                                                                     \
  }
LOGITLAB_UNARY(pow2_of_bits)
LOGITLAB_UNARY(exponent_bits)
LOGITLAB_UNARY(minus_bits_of_one)
LOGITLAB_BINARY(add)
LOGITLAB_BINARY(sub)
LOGITLAB_BINARY(mul)
LOGITLAB_BINARY(div)
LOGITLAB_BINARY(add_bits)
LOGITLAB_BINARY(and_bits)
LOGITLAB_BINARY(larger)
LOGITLAB_TERNARY(fma)
LOGITLAB_TERNARY(fms)
LOGITLAB_TERNARY(unless_equal)
#undef LOGITLAB_UNARY
#undef LOGITLAB_BINARY
#undef LOGITLAB_TERNARY

template <class T>
inline Vec<T> if_less(Vec<T> a, const Vec<T>& b, const Vec<T>& x, const Vec<T>& y) {
  for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = if_less(a.r[i], b.r[i], x.r[i], y.r[i]);
  return a;
}
template <class T>
inline bool all_less(const Vec<T>& a, const Vec<T>& b) {
  bool all = true;
  for (int i = 0; i < Vec<T>::regs; ++i) all = all && all_less(a.r[i], b.r[i]);
  return all;
}

inline int count_less(const Vec<double>& a, const Vec<double>& b) {
  int count = 0;
  for (int i = 0; i < Vec<double>::regs; ++i) count += count_less(a.r[i], b.r[i]);
  return count;
}

// Writes those of sixteen entries above `bar`, and their numbers, one after another; returns how
// many. Without numbers they are `first` and the next. Room for sixteen is needed; `to` and
// `to_number` may lie before what is read, or be it.
template <class T>
inline int pack_above(const T* z, const uint32_t* number, uint32_t first, T bar, T* to,
                      uint32_t* to_number) {
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    const T x = z[i];
    to[n] = x, to_number[n] = number ? number[i] : first + uint32_t(i);
    n += x > bar;
  }
  return n;
}
#if defined(__AVX512F__) && defined(__AVX512VL__)
inline __m512i numbers_from(uint32_t first) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_add_epi32(_mm512_set1_epi32(int(first)), lanes);
}
inline int pack_above(const float* z, const uint32_t* number, uint32_t first, float bar, float* to,
                      uint32_t* to_number) {
  const __m512 x = _mm512_loadu_ps(z);
  const __m512i numbers = number ? _mm512_loadu_si512(number) : numbers_from(first);
  const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(bar), _CMP_GT_OQ);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(above, x));
  _mm512_storeu_si512(to_number, _mm512_maskz_compress_epi32(above, numbers));
  return __builtin_popcount(above);
}
inline int pack_above(const double* z, const uint32_t* number, uint32_t first, double bar,
                      double* to, uint32_t* to_number) {
  int n = 0;
  for (int i = 0; i < kLanes; i += 8) {
    const __m512d x = _mm512_loadu_pd(z + i);
    const __m256i numbers = number
                                ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(number + i))
                                : _mm512_castsi512_si256(numbers_from(first + uint32_t(i)));
    const __mmask8 above = _mm512_cmp_pd_mask(x, _mm512_set1_pd(bar), _CMP_GT_OQ);
    _mm512_storeu_pd(to + n, _mm512_maskz_compress_pd(above, x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_number + n),
                        _mm256_maskz_compress_epi32(above, numbers));
    n += __builtin_popcount(above);
  }
  return n;
}
#endif

inline Vec<double> widen(const Vec<float>& a) {
  Vec<double> w;
  constexpr int ratio = Vec<double>::regs / Vec<float>::regs;
  for (int i = 0; i < Vec<float>::regs; ++i) widen(a.r[i], w.r + ratio * i);
  return w;
}
inline Vec<float> narrow(const Vec<double>& a) {
  Vec<float> n;
  constexpr int ratio = Vec<double>::regs / Vec<float>::regs;
  for (int i = 0; i < Vec<float>::regs; ++i) n.r[i] = narrow(a.r + ratio * i);
  return n;
}
inline Vec<double> widen(const Vec<double>& a) { return a; }
inline void round_to(const Vec<double>& a, Vec<float>& b) { b = narrow(a); }
inline void round_to(const Vec<double>& a, Vec<double>& b) { b = a; }

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
