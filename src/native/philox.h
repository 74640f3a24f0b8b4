// Philox4x32-10 of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011),
// sixteen counters at a time, and uniforms of its words.
#pragma once

#include <cstdint>

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int kBlocks = 16;

struct Key {
  uint32_t a, b;
};

// The first 64 bits of each block, as u = (w + 1/2) / 2^64, rounded once: above 0, at most 1.
inline void uniforms(Key key, const uint64_t* low, const uint64_t* high, double* u) {
  uint32_t x0[kBlocks], x1[kBlocks], x2[kBlocks], x3[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {
    x0[i] = uint32_t(low[i]), x1[i] = uint32_t(low[i] >> 32);
    x2[i] = uint32_t(high[i]), x3[i] = uint32_t(high[i] >> 32);
  }
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kBlocks; ++i) {
      const uint64_t a = uint64_t(x0[i]) * 0xD2511F53u, b = uint64_t(x2[i]) * 0xCD9E8D57u;
      x0[i] = uint32_t(b >> 32) ^ x1[i] ^ key.a;
      x1[i] = uint32_t(b);
      x2[i] = uint32_t(a >> 32) ^ x3[i] ^ key.b;
      x3[i] = uint32_t(a);
    }
    key.a += 0x9E3779B9u, key.b += 0xBB67AE85u;
  }
  for (int i = 0; i < kBlocks; ++i)
    u[i] = double(x1[i]) * 0x1p-32 + (double(x0[i]) + 0.5) * 0x1p-64;
}

// Those of draws [first, first + n) of each of `rows` rows, row after row.
inline void uniforms_of_rows(Key key, const uint64_t* row_keys, int64_t rows, int64_t first,
                             int64_t n, double* u) {
  uint64_t low[kBlocks], high[kBlocks];
  double block[kBlocks];
  int64_t row = 0, j = 0;
  for (int64_t at = 0; at < rows * n; at += kBlocks) {
    for (int i = 0; i < kBlocks; ++i) {
      low[i] = row_keys[row], high[i] = uint64_t(first + j);
      if (++j == n) j = 0, row += row + 1 < rows;
    }
    uniforms(key, low, high, block);
    for (int64_t i = 0; i < kBlocks && at + i < rows * n; ++i) u[at + i] = block[i];
  }
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
