// Writes the entries of sixteen lanes that fulfil a condition contiguously.
#pragma once

#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

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
#elif defined(__AVX2__)
// Entry `mask` has the numbers of its set bits in ascending order, one in each byte.
struct PackingOrder {
  uint64_t lanes[256];
};
constexpr PackingOrder make_packing_order() {
  PackingOrder order{};
  for (int mask = 0; mask < 256; ++mask)
    for (int lane = 0, n = 0; lane < 8; ++lane)
      if (mask >> lane & 1) order.lanes[mask] |= uint64_t(lane) << (8 * n++);
  return order;
}
constexpr PackingOrder kPackingOrder = make_packing_order();
// The same for lanes of double, as pairs of lanes of float.
constexpr uint8_t kPairs[16] = {0x00, 0x03, 0x0c, 0x0f, 0x30, 0x33, 0x3c, 0x3f,
                                0xc0, 0xc3, 0xcc, 0xcf, 0xf0, 0xf3, 0xfc, 0xff};

inline __m256i packing_order(unsigned mask) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(kPackingOrder.lanes[mask])));
}
inline void pack(__m256 x, unsigned mask, float* to) {
  _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(x, packing_order(mask)));
}
inline void pack(__m256d x, unsigned mask, double* to) {
  const __m256 lanes = _mm256_castpd_ps(x);
  const __m256i order = packing_order(kPairs[mask]);
  _mm256_storeu_pd(to, _mm256_castps_pd(_mm256_permutevar8x32_ps(lanes, order)));
}
inline int pack_above(const float* z, const uint32_t* number, uint32_t first, float bar, float* to,
                      uint32_t* to_number) {
  int n = 0;
  for (int i = 0; i < kLanes; i += 8) {
    const __m256 x = _mm256_loadu_ps(z + i);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i numbers = number
                                ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(number + i))
                                : _mm256_add_epi32(_mm256_set1_epi32(int(first) + i), lanes);
    const unsigned above = less(_mm256_set1_ps(bar), x);
    pack(x, above, to + n);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_number + n),
                        _mm256_permutevar8x32_epi32(numbers, packing_order(above)));
    n += __builtin_popcount(above);
  }
  return n;
}
inline int pack_above(const double* z, const uint32_t* number, uint32_t first, double bar,
                      double* to, uint32_t* to_number) {
  int n = 0;
  for (int i = 0; i < kLanes; i += 4) {
    const __m256d x = _mm256_loadu_pd(z + i);
    const __m128i numbers =
        number ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(number + i))
               : _mm_add_epi32(_mm_set1_epi32(int(first) + i), _mm_setr_epi32(0, 1, 2, 3));
    const unsigned above = less(_mm256_set1_pd(bar), x);
    pack(x, above, to + n);
    const __m128 packed =
        _mm_permutevar_ps(_mm_castsi128_ps(numbers), _mm256_castsi256_si128(packing_order(above)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to_number + n), _mm_castps_si128(packed));
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
    n += int(x >= low) & int(x <= high);
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
#elif defined(__AVX2__)
inline unsigned within(__m256 x, __m256 low, __m256 high) {
  return unsigned(_mm256_movemask_ps(bit_cast<__m256>((x >= low) & (x <= high))));
}
inline unsigned within(__m256d x, __m256d low, __m256d high) {
  return unsigned(_mm256_movemask_pd(bit_cast<__m256d>((x >= low) & (x <= high))));
}
template <class T>
inline int pack_registers(const Vec<T>& z, const Vec<T>& low, const Vec<T>& high, T* to) {
  int n = 0;
  for (int i = 0; i < Vec<T>::regs; ++i) {
    const unsigned mask = within(z.r[i], low.r[i], high.r[i]);
    pack(z.r[i], mask, to + n);
    n += __builtin_popcount(mask);
  }
  return n;
}
inline int pack_between(const Vec<float>& z, float low, float high, float* to) {
  return pack_registers(z, Vec<float>(low), Vec<float>(high), to);
}
inline int pack_between(const Vec<double>& z, double low, double high, double* to) {
  return pack_registers(z, Vec<double>(low), Vec<double>(high), to);
}
#endif

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
