// Sixteen lanes of float or double, in the registers of the instruction set that this translation
// unit is compiled for. Every operation is an IEEE one (fused multiply-add written out), so that
// all instruction sets give the same bits.
//
// Registers are vectors of GCC and Clang (the attribute vector_size). Intrinsics are for operations
// that these do not have, and for those of which GCC 12 makes slow code.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int kLanes = 16;

#if (defined(__GNUC__) || defined(__clang__)) && !defined(LOGITLAB_SCALAR)
#define LOGITLAB_VECTORS
#endif
#if defined(__GNUC__)
#define LOGITLAB_INLINE __attribute__((always_inline)) inline
#else
#define LOGITLAB_INLINE inline
#endif
// With sanitizers or emulated multiply-adds, code inlined as a whole takes minutes to compile.
#if (defined(__FMA__) || defined(__ARM_FEATURE_FMA)) && !defined(__SANITIZE_ADDRESS__)
#define LOGITLAB_FLATTEN __attribute__((flatten))
#else
#define LOGITLAB_FLATTEN
#endif

// A hint; any address is allowed.
inline void prefetch(const char* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 3);
#endif
}

// The unsigned integers of the size of T, and the bits of the fraction of T.
template <class T>
struct Bits;
template <>
struct Bits<float> {
  using Word = uint32_t;
  static constexpr int mantissa = 23;
};
template <>
struct Bits<double> {
  using Word = uint64_t;
  static constexpr int mantissa = 52;
};

template <class To, class From>
inline To bit_cast(From x) {
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

// The size of a register, and the intrinsic of that size: LOGITLAB_X86(max_ps) is _mm256_max_ps
// with AVX2.
#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#define LOGITLAB_X86(name) _mm512_##name
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#define LOGITLAB_X86(name) _mm256_##name
#elif defined(LOGITLAB_VECTORS)
constexpr int kRegisterBytes = 16;
#define LOGITLAB_X86(name) _mm_##name
#endif

// A vector of T, and its type in memory, at any address. Where the compiler has no vectors it is
// one number, to which the operators below apply as well.
#if defined(LOGITLAB_VECTORS)
template <class T, int Bytes = kRegisterBytes>
struct Register {
  typedef T Type __attribute__((vector_size(Bytes)));
  typedef T Unaligned __attribute__((vector_size(Bytes), aligned(1), may_alias));
};
#else
template <class T>
struct Register {
  using Type = T;
  using Unaligned = T;
};
#endif
template <class T>
using Reg = typename Register<T>::Type;
template <class T>
using WordReg = Reg<typename Bits<T>::Word>;

template <class T>
inline Reg<T> load(const T* p) {
  return *reinterpret_cast<const typename Register<T>::Unaligned*>(p);
}
template <class T>
inline void store(T* p, Reg<T> a) {
  *reinterpret_cast<typename Register<T>::Unaligned*>(p) = a;
}

// A store that bypasses the caches, to an aligned address; an ordinary one without AVX.
#if defined(__AVX2__)
inline void stream(float* p, Reg<float> a) { LOGITLAB_X86(stream_ps)(p, a); }
inline void stream(double* p, Reg<double> a) { LOGITLAB_X86(stream_pd)(p, a); }
#else
template <class T>
inline void stream(T* p, Reg<T> a) {
  store(p, a);
}
#endif

// a b + c, rounded once.
#if defined(__FMA__)
#define LOGITLAB_FMA
inline Reg<float> fused(Reg<float> a, Reg<float> b, Reg<float> c) {
  return LOGITLAB_X86(fmadd_ps)(a, b, c);
}
inline Reg<double> fused(Reg<double> a, Reg<double> b, Reg<double> c) {
  return LOGITLAB_X86(fmadd_pd)(a, b, c);
}
#elif defined(__aarch64__)
#define LOGITLAB_FMA
inline Reg<float> fused(Reg<float> a, Reg<float> b, Reg<float> c) { return vfmaq_f32(c, a, b); }
inline Reg<double> fused(Reg<double> a, Reg<double> b, Reg<double> c) { return vfmaq_f64(c, a, b); }
#endif

// Bit i is set where a < b in lane i. Compilers do not reduce a comparison of vectors this way.
#if defined(__AVX512F__)
#define LOGITLAB_MASK
inline unsigned less(Reg<float> a, Reg<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline unsigned less(Reg<double> a, Reg<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
#elif defined(__SSE2__)
#define LOGITLAB_MASK
inline unsigned less(Reg<float> a, Reg<float> b) {
  return unsigned(LOGITLAB_X86(movemask_ps)(bit_cast<Reg<float>>(a < b)));
}
inline unsigned less(Reg<double> a, Reg<double> b) {
  return unsigned(LOGITLAB_X86(movemask_pd)(bit_cast<Reg<double>>(a < b)));
}
#elif defined(__aarch64__)
#define LOGITLAB_MASK
inline unsigned less(Reg<float> a, Reg<float> b) {
  return vaddvq_u32(bit_cast<Reg<uint32_t>>(a < b) & Reg<uint32_t>{1, 2, 4, 8});
}
inline unsigned less(Reg<double> a, Reg<double> b) {
  return unsigned(vaddvq_u64(bit_cast<Reg<uint64_t>>(a < b) & Reg<uint64_t>{1, 2}));
}
#endif

#if defined(__AVX512F__)
// The mask of register i of the first n of sixteen lanes, and loads and stores of register i with
// it.
template <class T>
inline unsigned first_mask(int n, int i) {
  constexpr int width = kRegisterBytes / int(sizeof(T));
  return (((1u << n) - 1) >> (i * width)) & ((1u << width) - 1);
}
inline Reg<float> load_masked(Reg<float> a, unsigned mask, const float* p, int i) {
  return _mm512_mask_loadu_ps(a, __mmask16(mask), p + 16 * i);
}
inline Reg<double> load_masked(Reg<double> a, unsigned mask, const double* p, int i) {
  return _mm512_mask_loadu_pd(a, __mmask8(mask), p + 8 * i);
}
inline void store_masked(float* p, unsigned mask, Reg<float> a, int i) {
  _mm512_mask_storeu_ps(p + 16 * i, __mmask16(mask), a);
}
inline void store_masked(double* p, unsigned mask, Reg<double> a, int i) {
  _mm512_mask_storeu_pd(p + 8 * i, __mmask8(mask), a);
}
#endif

// Sixteen lanes of T.
template <class T>
struct Vec {
  static constexpr int width = sizeof(Reg<T>) / sizeof(T), regs = kLanes / width;
  Reg<T> r[regs];

  Vec() = default;
  explicit Vec(T x) {
    for (auto& reg : r) reg = x - Reg<T>{};  // x - 0 is x, x + 0 is not where x = -0
  }
  explicit Vec(const T* p) {
    for (int i = 0; i < regs; ++i) r[i] = load(p + i * width);
  }
  void put(T* p) const {
    for (int i = 0; i < regs; ++i) store(p + i * width, r[i]);
  }
  void put_streaming(T* p) const {
    for (int i = 0; i < regs; ++i) stream(p + i * width, r[i]);
  }
};

// The first n < 16 entries at p, and then `padding`; and a store of the first n lanes.
template <class T>
inline Vec<T> load_first(const T* p, int n, T padding) {
#if defined(__AVX512F__)
  Vec<T> a(padding);
  for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = load_masked(a.r[i], first_mask<T>(n, i), p, i);
  return a;
#else
  T lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = i < n ? p[i] : padding;
  return Vec<T>(lane);
#endif
}
template <class T>
inline void put_first(const Vec<T>& a, T* p, int n) {
#if defined(__AVX512F__)
  for (int i = 0; i < Vec<T>::regs; ++i) store_masked(p, first_mask<T>(n, i), a.r[i], i);
#else
  T lane[kLanes];
  a.put(lane);
  std::memcpy(p, lane, size_t(n) * sizeof(T));
#endif
}

// Functions on vectors; `value` is an expression of registers x and y of lanes T.
#define LOGITLAB_UNARY(name, value)          \
  template <class T>                         \
  inline Vec<T> name(Vec<T> a) {             \
    for (int i = 0; i < Vec<T>::regs; ++i) { \
      const Reg<T> x = a.r[i];               \
      a.r[i] = value;                        \
    }                                        \
    return a;                                \
  }
#define LOGITLAB_BINARY(name, value)              \
  template <class T>                              \
  inline Vec<T> name(Vec<T> a, const Vec<T>& b) { \
    for (int i = 0; i < Vec<T>::regs; ++i) {      \
      const Reg<T> x = a.r[i], y = b.r[i];        \
      a.r[i] = value;                             \
    }                                             \
    return a;                                     \
  }
LOGITLAB_BINARY(add, x + y)
LOGITLAB_BINARY(sub, x - y)
LOGITLAB_BINARY(mul, (x * y))
LOGITLAB_BINARY(div, x / y)
LOGITLAB_BINARY(larger, x > y ? x : y)   // y where one of them is NaN
LOGITLAB_BINARY(smaller, x < y ? x : y)  // y where one of them is NaN
LOGITLAB_BINARY(add_bits, bit_cast<Reg<T>>(bit_cast<WordReg<T>>(x) + bit_cast<WordReg<T>>(y)))
LOGITLAB_BINARY(and_bits, bit_cast<Reg<T>>(bit_cast<WordReg<T>>(x) & bit_cast<WordReg<T>>(y)))
LOGITLAB_UNARY(exponent_bits, bit_cast<Reg<T>>(bit_cast<WordReg<T>>(x) >> Bits<T>::mantissa))
LOGITLAB_UNARY(pow2_of_bits, bit_cast<Reg<T>>(bit_cast<WordReg<T>>(x) << Bits<T>::mantissa))
LOGITLAB_UNARY(minus_bits_of_one,
               bit_cast<Reg<T>>(bit_cast<WordReg<T>>(x) - bit_cast<typename Bits<T>::Word>(T(1))))
#undef LOGITLAB_UNARY
#undef LOGITLAB_BINARY

#if !defined(LOGITLAB_FMA)
// The same of numbers, one by one.
template <class T>
inline Vec<T> fma_scalars(const Vec<T>& a, const Vec<T>& b, const Vec<T>& c) {
  T x[kLanes], y[kLanes], z[kLanes];
  a.put(x), b.put(y), c.put(z);
  for (int i = 0; i < kLanes; ++i) x[i] = std::fma(x[i], y[i], z[i]);
  return Vec<T>(x);
}
#endif

// a b + c and a b - c, rounded once.
template <class T>
inline Vec<T> fma(Vec<T> a, const Vec<T>& b, const Vec<T>& c) {
#if defined(LOGITLAB_FMA)
  for (int i = 0; i < Vec<T>::regs; ++i) a.r[i] = fused(a.r[i], b.r[i], c.r[i]);
  return a;
#else
  return fma_scalars(a, b, c);
#endif
}
#if defined(__SSE2__) && !defined(LOGITLAB_FMA)
// In double the product is exact, and the sum is rounded to 53 digits. To round it again is wrong
// only where it is then halfway between two floats, or where the result is subnormal.
inline Vec<float> fma(const Vec<float>& a, const Vec<float>& b, const Vec<float>& c) {
  const __m128i tail = _mm_set1_epi64x(0x1fffffff), half = _mm_set1_epi64x(0x10000000);
  const __m128i above = _mm_set1_epi64x(0x7fffffffffffffff);
  const __m128d smallest = _mm_set1_pd(0x1p-126), zero = _mm_setzero_pd();
  Vec<float> result;
  __m128i unsure = _mm_setzero_si128();
  auto two = [&](__m128 x, __m128 y, __m128 z) {
    const __m128d sum = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
    const __m128i bits = _mm_castpd_si128(sum);
    const __m128d size = _mm_castsi128_pd(_mm_and_si128(bits, above));
    const __m128d small = _mm_and_pd(_mm_cmplt_pd(size, smallest), _mm_cmpneq_pd(size, zero));
    unsure = _mm_or_si128(unsure, _mm_cmpeq_epi32(_mm_and_si128(bits, tail), half));
    unsure = _mm_or_si128(unsure, _mm_castpd_si128(small));
    return _mm_cvtpd_ps(sum);
  };
  for (int i = 0; i < Vec<float>::regs; ++i) {
    const __m128 x = a.r[i], y = b.r[i], z = c.r[i];
    const __m128 low = two(x, y, z);
    const __m128 high = two(_mm_movehl_ps(x, x), _mm_movehl_ps(y, y), _mm_movehl_ps(z, z));
    result.r[i] = _mm_movelh_ps(low, high);
  }
  // The high halves of `tail` and `half` are equal.
  if (_mm_movemask_epi8(unsure) & 0x0f0f) return fma_scalars(a, b, c);
  return result;
}
#endif
template <class T>
inline Vec<T> fms(const Vec<T>& a, const Vec<T>& b, Vec<T> c) {
  for (auto& reg : c.r) reg = -reg;
  return fma(a, b, c);
}

// a < b ? x : y, of which a comparison with NaN gives y.
template <class T>
inline Vec<T> if_less(const Vec<T>& a, const Vec<T>& b, Vec<T> x, const Vec<T>& y) {
  for (int i = 0; i < Vec<T>::regs; ++i) x.r[i] = a.r[i] < b.r[i] ? x.r[i] : y.r[i];
  return x;
}
// a == b ? 0 : x, of which a comparison with NaN gives x.
template <class T>
inline Vec<T> unless_equal(const Vec<T>& a, const Vec<T>& b, Vec<T> x) {
  for (int i = 0; i < Vec<T>::regs; ++i) x.r[i] = a.r[i] == b.r[i] ? Reg<T>{} : x.r[i];
  return x;
}

#if defined(LOGITLAB_MASK)
template <class T>
inline bool all_less(const Vec<T>& a, const Vec<T>& b) {
  bool all = true;
  for (int i = 0; i < Vec<T>::regs; ++i)
    all = all && less(a.r[i], b.r[i]) == (1u << Vec<T>::width) - 1;
  return all;
}
template <class T>
inline int count_less(const Vec<T>& a, const Vec<T>& b) {
  int count = 0;
  for (int i = 0; i < Vec<T>::regs; ++i) count += __builtin_popcount(less(a.r[i], b.r[i]));
  return count;
}
#else
template <class T>
inline int count_less(const Vec<T>& a, const Vec<T>& b) {
  T x[kLanes], y[kLanes];
  a.put(x), b.put(y);
  int count = 0;
  for (int i = 0; i < kLanes; ++i) count += x[i] < y[i];
  return count;
}
template <class T>
inline bool all_less(const Vec<T>& a, const Vec<T>& b) {
  return count_less(a, b) == kLanes;
}
#endif

// The lanes of one register of float are those of two of double, converted as one vector. In
// narrow(), GCC 12 may assemble this vector in memory, so intrinsics do it with AVX.
inline Vec<double> widen(const Vec<float>& a) {
  Vec<double> w;
#if defined(LOGITLAB_VECTORS)
  using Pair = Register<double, 2 * kRegisterBytes>::Type;
  for (int i = 0; i < Vec<float>::regs; ++i) {
    const Pair pair = __builtin_convertvector(a.r[i], Pair);
    std::memcpy(w.r + 2 * i, &pair, sizeof pair);
  }
#else
  for (int i = 0; i < kLanes; ++i) w.r[i] = a.r[i];
#endif
  return w;
}
inline Vec<float> narrow(const Vec<double>& a) {
  Vec<float> n;
#if defined(__AVX512F__)
  const __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps(a.r[0]));
  const __m256 high = _mm512_cvtpd_ps(a.r[1]);
  n.r[0] = _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(low), _mm256_castps_pd(high), 1));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i)
    n.r[i] = _mm256_set_m128(_mm256_cvtpd_ps(a.r[2 * i + 1]), _mm256_cvtpd_ps(a.r[2 * i]));
#elif defined(LOGITLAB_VECTORS)
  using Pair = Register<double, 2 * kRegisterBytes>::Type;
  for (int i = 0; i < Vec<float>::regs; ++i) {
    Pair pair;
    std::memcpy(&pair, a.r + 2 * i, sizeof pair);
    n.r[i] = __builtin_convertvector(pair, Reg<float>);
  }
#else
  for (int i = 0; i < kLanes; ++i) n.r[i] = float(a.r[i]);
#endif
  return n;
}
inline Vec<double> widen(const Vec<double>& a) { return a; }
inline void round_to(const Vec<double>& a, Vec<float>& b) { b = narrow(a); }
inline void round_to(const Vec<double>& a, Vec<double>& b) { b = a; }

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
