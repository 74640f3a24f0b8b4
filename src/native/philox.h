// Philox4x32-10 of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), many
// counters at a time, and uniforms of its words.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int kBlocks = 32;

struct Key {
  uint32_t a, b;
};

// Some 64-bit words side by side; `times` multiplies their lower halves.
#if defined(__AVX512F__)
struct Words {
  static constexpr int width = 8;
  __m512i v;
};
inline Words load_words(const uint64_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_words(uint64_t* p, Words a) { _mm512_storeu_si512(p, a.v); }
inline Words words(uint64_t x) { return {_mm512_set1_epi64(int64_t(x))}; }
inline Words times(Words a, Words b) { return {_mm512_mul_epu32(a.v, b.v)}; }
inline Words high(Words a) { return {_mm512_srli_epi64(a.v, 32)}; }
inline Words exclusive(Words a, Words b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline Words both(Words a, Words b) { return {_mm512_and_si512(a.v, b.v)}; }
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
inline Words words(uint64_t x) { return {_mm256_set1_epi64x(int64_t(x))}; }
inline Words times(Words a, Words b) { return {_mm256_mul_epu32(a.v, b.v)}; }
inline Words high(Words a) { return {_mm256_srli_epi64(a.v, 32)}; }
inline Words exclusive(Words a, Words b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline Words both(Words a, Words b) { return {_mm256_and_si256(a.v, b.v)}; }
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
inline Words words(uint64_t x) { return {_mm_set1_epi64x(int64_t(x))}; }
inline Words times(Words a, Words b) { return {_mm_mul_epu32(a.v, b.v)}; }
inline Words high(Words a) { return {_mm_srli_epi64(a.v, 32)}; }
inline Words exclusive(Words a, Words b) { return {_mm_xor_si128(a.v, b.v)}; }
inline Words both(Words a, Words b) { return {_mm_and_si128(a.v, b.v)}; }
#else
struct Words {
  static constexpr int width = 1;
  uint64_t v;
};
inline Words load_words(const uint64_t* p) { return {*p}; }
inline void store_words(uint64_t* p, Words a) { *p = a.v; }
inline Words words(uint64_t x) { return {x}; }
inline Words times(Words a, Words b) { return {uint64_t(uint32_t(a.v)) * uint32_t(b.v)}; }
inline Words high(Words a) { return {a.v >> 32}; }
inline Words exclusive(Words a, Words b) { return {a.v ^ b.v}; }
inline Words both(Words a, Words b) { return {a.v & b.v}; }
#endif

// The first 64 bits w of each block, as u = (w + 1/2) / 2^64, rounded once: above 0, at most 1.
inline void uniforms(Key key, const uint64_t* low, const uint64_t* above, double* u) {
  constexpr int count = kBlocks / Words::width;
  const Words first = words(0xD2511F53u), second = words(0xCD9E8D57u), mask = words(0xffffffffu);
  // Upper halves hold anything: `times` does not see them.
  Words x0[count], x1[count], x2[count], x3[count];
  for (int i = 0; i < count; ++i) {
    x0[i] = load_words(low + i * Words::width), x1[i] = high(x0[i]);
    x2[i] = load_words(above + i * Words::width), x3[i] = high(x2[i]);
  }
  for (int round = 0; round < 10; ++round) {
    const Words a = words(key.a), b = words(key.b);
    for (int i = 0; i < count; ++i) {
      const Words p = times(x0[i], first), q = times(x2[i], second);
      x0[i] = exclusive(exclusive(high(q), x1[i]), a), x1[i] = q;
      x2[i] = exclusive(exclusive(high(p), x3[i]), b), x3[i] = p;
    }
    key.a += 0x9E3779B9u, key.b += 0xBB67AE85u;
  }
  // A word as the low digits of 2^52 is a double.
  const Words big = words(bit_cast<uint64_t>(0x1p52));
  uint64_t upper[kBlocks], lower[kBlocks];
  for (int i = 0; i < count; ++i) {
    store_words(upper + i * Words::width, exclusive(both(x1[i], mask), big));
    store_words(lower + i * Words::width, exclusive(both(x0[i], mask), big));
  }
  double h[kBlocks], l[kBlocks];
  std::memcpy(h, upper, sizeof h);
  std::memcpy(l, lower, sizeof l);
  for (int i = 0; i < kBlocks; ++i)
    u[i] = (h[i] - 0x1p52) * 0x1p-32 + ((l[i] - 0x1p52) + 0.5) * 0x1p-64;
}

// Those of draws [first, first + n) of each of `rows` rows, row after row.
inline void uniforms_of_rows(Key key, const uint64_t* row_keys, int64_t rows, int64_t first,
                             int64_t n, double* u) {
  uint64_t low[kBlocks], above[kBlocks];
  int64_t row = 0, j = 0;
  for (int64_t at = 0; at < rows * n; at += kBlocks) {
    if (j + kBlocks <= n) {
      for (int i = 0; i < kBlocks; ++i) low[i] = row_keys[row], above[i] = uint64_t(first + j + i);
      j += kBlocks;
      if (j == n) j = 0, row += row + 1 < rows;
    } else {
      for (int i = 0; i < kBlocks; ++i) {
        low[i] = row_keys[row], above[i] = uint64_t(first + j);
        if (++j == n) j = 0, row += row + 1 < rows;
      }
    }
    if (at + kBlocks <= rows * n) {
      uniforms(key, low, above, u + at);
    } else {
      double block[kBlocks];
      uniforms(key, low, above, block);
      std::copy(block, block + (rows * n - at), u + at);
    }
  }
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
