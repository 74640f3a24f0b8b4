// Philox4x32-10 of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), for
// many counters at once, and uniform numbers from its words.
#pragma once

#include "algorithms.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Counters computed at once.
constexpr int kCounters = 32;

struct Key {
  uint32_t a, b;
};

// A register of 64-bit words; multiply_low multiplies their lower halves.
#if defined(__AVX512F__)
struct Words {
  static constexpr int width = 8;
  __m512i v;
};
inline Words load_words(const uint64_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_words(uint64_t* p, Words a) { _mm512_storeu_si512(p, a.v); }
inline Words broadcast_words(uint64_t x) { return {_mm512_set1_epi64(int64_t(x))}; }
inline Words multiply_low(Words a, Words b) { return {_mm512_mul_epu32(a.v, b.v)}; }
inline Words upper_half(Words a) { return {_mm512_srli_epi64(a.v, 32)}; }
inline Words bit_xor(Words a, Words b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline Words bit_and(Words a, Words b) { return {_mm512_and_si512(a.v, b.v)}; }
#elif defined(__AVX2__)
struct Words {
  static constexpr int width = 4;
  __m256i v;
};
inline Words load_words(const uint64_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline void store_words(uint64_t* p, Words a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
inline Words broadcast_words(uint64_t x) { return {_mm256_set1_epi64x(int64_t(x))}; }
inline Words multiply_low(Words a, Words b) { return {_mm256_mul_epu32(a.v, b.v)}; }
inline Words upper_half(Words a) { return {_mm256_srli_epi64(a.v, 32)}; }
inline Words bit_xor(Words a, Words b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline Words bit_and(Words a, Words b) { return {_mm256_and_si256(a.v, b.v)}; }
#elif defined(__SSE2__)
struct Words {
  static constexpr int width = 2;
  __m128i v;
};
inline Words load_words(const uint64_t* p) {
  return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
}
inline void store_words(uint64_t* p, Words a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a.v);
}
inline Words broadcast_words(uint64_t x) { return {_mm_set1_epi64x(int64_t(x))}; }
inline Words multiply_low(Words a, Words b) { return {_mm_mul_epu32(a.v, b.v)}; }
inline Words upper_half(Words a) { return {_mm_srli_epi64(a.v, 32)}; }
inline Words bit_xor(Words a, Words b) { return {_mm_xor_si128(a.v, b.v)}; }
inline Words bit_and(Words a, Words b) { return {_mm_and_si128(a.v, b.v)}; }
#else
struct Words {
  static constexpr int width = 1;
  uint64_t v;
};
inline Words load_words(const uint64_t* p) { return {*p}; }
inline void store_words(uint64_t* p, Words a) { *p = a.v; }
inline Words broadcast_words(uint64_t x) { return {x}; }
inline Words multiply_low(Words a, Words b) { return {uint64_t(uint32_t(a.v)) * uint32_t(b.v)}; }
inline Words upper_half(Words a) { return {a.v >> 32}; }
inline Words bit_xor(Words a, Words b) { return {a.v ^ b.v}; }
inline Words bit_and(Words a, Words b) { return {a.v & b.v}; }
#endif

// u = (w + 1/2) / 2^64, rounded once, of the first 64 bits w of each Philox block: above 0, at
// most 1. The counter is `counter_low`, then `counter_high`.
inline void uniforms(Key key, const uint64_t* counter_low, const uint64_t* counter_high,
                     double* u) {
  constexpr int count = kCounters / Words::width;
  const Words first = broadcast_words(0xD2511F53u), second = broadcast_words(0xCD9E8D57u),
              mask = broadcast_words(0xffffffffu);
  // The upper halves have undefined contents, which multiply_low ignores.
  Words x0[count], x1[count], x2[count], x3[count];
  for (int i = 0; i < count; ++i) {
    x0[i] = load_words(counter_low + i * Words::width), x1[i] = upper_half(x0[i]);
    x2[i] = load_words(counter_high + i * Words::width), x3[i] = upper_half(x2[i]);
  }
  for (int round = 0; round < 10; ++round) {
    const Words a = broadcast_words(key.a), b = broadcast_words(key.b);
    for (int i = 0; i < count; ++i) {
      const Words p = multiply_low(x0[i], first), q = multiply_low(x2[i], second);
      x0[i] = bit_xor(bit_xor(upper_half(q), x1[i]), a), x1[i] = q;
      x2[i] = bit_xor(bit_xor(upper_half(p), x3[i]), b), x3[i] = p;
    }
    key.a += 0x9E3779B9u, key.b += 0xBB67AE85u;
  }
  // The bits of 2^52 with a word as its low digits are a double.
  const Words big = broadcast_words(bit_cast<uint64_t>(0x1p52));
  uint64_t upper[kCounters], lower[kCounters];
  for (int i = 0; i < count; ++i) {
    store_words(upper + i * Words::width, bit_xor(bit_and(x1[i], mask), big));
    store_words(lower + i * Words::width, bit_xor(bit_and(x0[i], mask), big));
  }
  double high[kCounters], low[kCounters];
  std::memcpy(high, upper, sizeof high);
  std::memcpy(low, lower, sizeof low);
  for (int i = 0; i < kCounters; ++i)
    u[i] = (high[i] - 0x1p52) * 0x1p-32 + ((low[i] - 0x1p52) + 0.5) * 0x1p-64;
}

// The uniform numbers of draws [first, first + n) of each of `rows` rows, row after row.
inline void uniforms_of_rows(Key key, const uint64_t* row_keys, int64_t rows, int64_t first,
                             int64_t n, double* u) {
  uint64_t counter_low[kCounters], counter_high[kCounters];
  int64_t row = 0, draw = 0;
  for (int64_t at = 0; at < rows * n; at += kCounters) {
    if (draw + kCounters <= n) {
      for (int i = 0; i < kCounters; ++i)
        counter_low[i] = row_keys[row], counter_high[i] = uint64_t(first + draw + i);
      draw += kCounters;
      if (draw == n) draw = 0, row += row + 1 < rows;
    } else {
      for (int i = 0; i < kCounters; ++i) {
        counter_low[i] = row_keys[row], counter_high[i] = uint64_t(first + draw);
        if (++draw == n) draw = 0, row += row + 1 < rows;
      }
    }
    if (at + kCounters <= rows * n) {
      uniforms(key, counter_low, counter_high, u + at);
    } else {
      double block[kCounters];
      uniforms(key, counter_low, counter_high, block);
      copy(block, rows * n - at, u + at);
    }
  }
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
