// float16 and bfloat16 as their bits, to and from float; to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

namespace logitlab {
namespace {  // compiled separately for every instruction set

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float widened(BFloat x) { return float_of(uint32_t(x.bits) << 16); }
inline float widened(Half x) {
  // The exponent of a half moved into place is 112 too small: one exact product corrects it,
  // also for subnormal numbers.
  const uint32_t rest = uint32_t(x.bits & 0x7fff) << 13, sign = uint32_t(x.bits & 0x8000) << 16;
  const bool special = (x.bits & 0x7c00) == 0x7c00;
  const float scaled = float_of(rest) * 0x1p112f;
  return float_of((special ? rest | 0x7f800000 : bits_of(scaled)) | sign);
}
inline float widened(float x) { return x; }
inline double widened(double x) { return x; }

inline void narrow_to(float x, BFloat& y) {
  const uint32_t b = bits_of(x);
  y.bits = uint16_t((b & 0x7fffffff) > 0x7f800000 ? (b >> 16) | 0x40
                                                  : (b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
inline void narrow_to(float x, Half& y) {
  const uint32_t b = bits_of(x), sign = (b >> 16) & 0x8000, rest = b & 0x7fffffff;
  uint32_t r;
  if (rest > 0x7f800000) {
    r = 0x7e00;
  } else if (rest >= 0x477ff000) {  // 65520, halfway above the largest
    r = 0x7c00;
  } else if (rest < 0x38800000) {  // below 2^-14: a multiple of 2^-24 by one rounded addition
    r = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
  } else {
    r = (rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13;
  }
  y.bits = uint16_t(r | sign);
}
inline void narrow_to(float x, float& y) { y = x; }
inline void narrow_to(double x, double& y) { y = x; }

}  // namespace
}  // namespace logitlab
