// Transposes four numbers of each of four rows.
#pragma once

#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// The lanes of a (0 to 3) and b (4 to 7) with the given numbers.
#if defined(__clang__)
#define LOGITLAB_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LOGITLAB_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Index{__VA_ARGS__})
#endif

// to[j * to_step + i] = from[i * from_step + j] for i, j in 0..3; written in the order of j, so
// that where rows of `to` overlap, the later one stands.
template <class T>
inline void transpose4(const T* from, int64_t from_step, T* to, int64_t to_step) {
#if defined(LOGITLAB_VECTORS)
  constexpr int bytes = 4 * sizeof(T);
  if constexpr (bytes <= kRegisterBytes) {
    using Row = typename Register<T, bytes>::Type;
    using Index [[maybe_unused]] = typename Register<typename Bits<T>::Word, bytes>::Type;
    const auto row = [&](int i) -> Row {
      return *reinterpret_cast<const typename Register<T, bytes>::Unaligned*>(from + i * from_step);
    };
    const auto put = [&](int j, Row x) {
      *reinterpret_cast<typename Register<T, bytes>::Unaligned*>(to + j * to_step) = x;
    };
    const Row a = row(0), b = row(1), c = row(2), d = row(3);
    // Each of these shuffles is one instruction.
    if constexpr (sizeof(T) == 4) {
      const Row ab = LOGITLAB_SHUFFLE(a, b, 0, 4, 1, 5), cd = LOGITLAB_SHUFFLE(c, d, 0, 4, 1, 5);
      const Row ab2 = LOGITLAB_SHUFFLE(a, b, 2, 6, 3, 7), cd2 = LOGITLAB_SHUFFLE(c, d, 2, 6, 3, 7);
      put(0, LOGITLAB_SHUFFLE(ab, cd, 0, 1, 4, 5));
      put(1, LOGITLAB_SHUFFLE(ab, cd, 2, 3, 6, 7));
      put(2, LOGITLAB_SHUFFLE(ab2, cd2, 0, 1, 4, 5));
      put(3, LOGITLAB_SHUFFLE(ab2, cd2, 2, 3, 6, 7));
    } else {
      const Row ab = LOGITLAB_SHUFFLE(a, b, 0, 4, 2, 6), cd = LOGITLAB_SHUFFLE(c, d, 0, 4, 2, 6);
      const Row ab2 = LOGITLAB_SHUFFLE(a, b, 1, 5, 3, 7), cd2 = LOGITLAB_SHUFFLE(c, d, 1, 5, 3, 7);
      put(0, LOGITLAB_SHUFFLE(ab, cd, 0, 1, 4, 5));
      put(1, LOGITLAB_SHUFFLE(ab2, cd2, 0, 1, 4, 5));
      put(2, LOGITLAB_SHUFFLE(ab, cd, 2, 3, 6, 7));
      put(3, LOGITLAB_SHUFFLE(ab2, cd2, 2, 3, 6, 7));
    }
    return;
  }
#endif
  T x[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) x[j][i] = from[i * from_step + j];
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) to[j * to_step + i] = x[j][i];
}
#undef LOGITLAB_SHUFFLE

// Writes those of sixteen entries that are above `bar`, and their numbers, contiguously; returns
// their count. If `number` is null, the numbers are first, first + 1, ... `to` and `to_number` need
// space for sixteen entries, and may be the input or precede it.
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

// Writes those of sixteen entries that are from low to high contiguously; returns their count. `to`
// needs space for sixteen.
template <class T>
inline int pack_between(const Vec<T>& z, T low, T high, T* to) {
  T lane[kLanes];
  z.put(lane);
  int n = 0;
  for (T x : lane) {
    to[n] = x;
    n += x >= low && x <= high;
  }
  return n;
}
#if defined(__AVX512F__)
inline int pack_between(const Vec<float>& z, float low, float high, float* to) {
  const __mmask16 not_below = _mm512_cmp_ps_mask(z.r[0], _mm512_set1_ps(low), _CMP_GE_OQ);
  const __mmask16 within =
      _mm512_mask_cmp_ps_mask(not_below, z.r[0], _mm512_set1_ps(high), _CMP_LE_OQ);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(within, z.r[0]));
  return __builtin_popcount(within);
}
#endif

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
