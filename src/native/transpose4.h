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

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
