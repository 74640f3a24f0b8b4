// One row of contiguous float or double at a finite temperature above 0.
//
// A row is cut into chunks that stay in the cache nearest to the core; a chunk's weights are held
// relative to its own largest entry. Their sums are added in the order of the chunks.
#pragma once

#include <atomic>

#include "batch.h"
#include "targets.h"
#include "threads.h"
#include "vector_math.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

constexpr int64_t kChunk = 4096;
constexpr int64_t kGroup = 4 * kLanes;

// NaN apart.
template <class T>
LOGITLAB_FLATTEN T largest(const T* z, int64_t k) {
  const T lowest = -std::numeric_limits<T>::infinity();
  T lane[kLanes];
  if (k < kLanes) {
    std::fill(std::copy(z, z + k, lane), lane + kLanes, lowest);
    larger(Vec<T>(lane), Vec<T>(lowest)).put(lane);
  } else {
    Vec<T> m[4] = {Vec<T>(lowest), Vec<T>(lowest), Vec<T>(lowest), Vec<T>(lowest)};
    int64_t i = 0;
    for (; i + kGroup <= k; i += kGroup)
      for (int j = 0; j < 4; ++j) m[j] = larger(Vec<T>(z + i + j * kLanes), m[j]);
    for (int j = 0; i + kLanes <= k; i += kLanes, ++j) m[j] = larger(Vec<T>(z + i), m[j]);
    m[3] = larger(Vec<T>(z + k - kLanes), m[3]);
    larger(larger(m[0], m[1]), larger(m[2], m[3])).put(lane);
  }
  for (int half = kLanes / 2; half; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] = std::max(lane[j], lane[j + half]);
  return lane[0];
}

template <class T>
struct Chunk {
  T m;              // the largest entry
  T n;              // its exponent N
  double sum, low;  // of the weights over 2^lift; without those of the largest entries, if Rest
  int64_t ties;
};

// Whether a logarithm of a sum is so close to its last digit that the weights are taken in two
// parts.
template <class T>
constexpr bool kTwoParts = sizeof(T) == 8;

// The weights of a chunk, written to `e` if Keep; with Rest, the largest entries are counted and
// left out of the sum.
template <class T, bool Keep, bool Rest>
LOGITLAB_FLATTEN Chunk<T> chunk(const T* z, T* e, int64_t k, T m, const Scale<T>& s) {
  const Frame<T> frame = frame_of(m, s);
  const Vec<T> c(s.c), c_low(s.c_low), magic(frame.magic), floor(frame.floor), top(m), one(T(1));
  Sums<T> sums;
  Vec<T> others(T(0));
  auto weigh = [&](const T* from, T* to) {
    const Vec<T> v(from);
    Vec<T> lost;
    constexpr bool two = Rest && kTwoParts<T>;
    const Vec<T> x = weights(v, c, c_low, magic, floor, two ? &lost : nullptr);
    if constexpr (Keep) x.put(to);
    if constexpr (!Rest) return x;
    if constexpr (two) sums.add_lost(unless_equal(v, top, lost));
    others = add(others, unless_equal(v, top, one));
    return unless_equal(v, top, x);
  };
  int64_t i = 0;
  for (; i + kGroup <= k; i += kGroup) {
    // The next chunk comes from memory while this one is computed.
    for (size_t j = 0; j < kGroup * sizeof(T); j += 64)
      prefetch(reinterpret_cast<const char*>(z + i + kChunk) + j);
    const Vec<T> a = weigh(z + i, e + i), b = weigh(z + i + kLanes, e + i + kLanes);
    const Vec<T> x = weigh(z + i + 2 * kLanes, e + i + 2 * kLanes);
    const Vec<T> y = weigh(z + i + 3 * kLanes, e + i + 3 * kLanes);
    sums.add_to(add(add(a, b), add(x, y)));
  }
  int64_t seen = i;
  if (i < k) {
    Vec<T> x[4] = {Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0))};
    int j = 0;
    for (; i + kLanes <= k; i += kLanes, ++j, seen += kLanes) x[j] = weigh(z + i, e + i);
    if (i < k) {
      T padded[kLanes], padded_e[kLanes];
      std::fill(std::copy(z + i, z + k, padded), padded + kLanes,
                -std::numeric_limits<T>::infinity());
      x[j] = weigh(padded, padded_e);
      seen += kLanes;
      if (Keep) std::copy(padded_e, padded_e + (k - i), e + i);
    }
    sums.add_to(add(add(x[0], x[1]), add(x[2], x[3])));
  }
  double lane[kLanes][1], lost[kLanes][1];
  sums.put(lane[0], lost[0]);
  tree<1>(lane, lost);
  const double unlift = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;
  if constexpr (Rest) {
    T count[kLanes];
    others.put(count);
    for (T x : count) seen -= int64_t(x);
  }
  return {m, frame.n, lane[0][0] * unlift, lost[0][0] * unlift, Rest ? seen : 0};
}

inline double pow2(double n) { return n < -1100 ? 0 : std::ldexp(1.0, int(n)); }

// What all chunks weigh together.
struct LogSum {
  double others, low;  // than one largest entry, over its weight
  double top;          // the weight of a largest entry over 2^(the largest N)
  // log sum exp((z - m)/T), and what its rounding leaves.
  double log(double& left) const { return log1p_of(others, low, left); }
};
// m + t (log + low), all but rounded once.
template <class T>
inline T logsumexp_of(T m, double t, double log, double low) {
  const double part = t * log;
  double left = std::fma(t, log, -part) + t * low;
  const double sum = two_sum(double(m), part, left);
  return T(sum + left);
}
// Whether what excluded entries weigh, 2^-drop each, may be seen in m + t log(1 + others).
template <class T>
inline bool floor_seen(double others, int64_t k, double t, T m) {
  return others < double(k) * Range<T>::faint &&
         t * others > std::max(std::fabs(double(m)) * 0x1p-26, 0x1p-151);
}
template <class T>
LogSum log_sum(const Chunk<T>* chunks, int64_t count, T m, const Scale<T>& s) {
  T n = chunks[0].n;
  for (int64_t i = 1; i < count; ++i) n = std::max(n, chunks[i].n);
  // The weight of an entry m_i over 2^N_i is 2^(m_i c - N_i).
  auto weight = [&](const Chunk<T>& chunk, double& low) {
    const double c = double(s.c), c_low = double(s.c_low), x = double(chunk.m);
    return exp2_reduced(std::fma(x, c, -double(chunk.n)) + x * c_low, &low);
  };
  double rest = 0, lost = 0, top = 1, top_low = 0;
  int64_t ties = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double unit = pow2(double(chunks[i].n) - double(n));
    if (chunks[i].m == m) {
      ties += chunks[i].ties;
      top = weight(chunks[i], top_low);
    } else if (chunks[i].ties) {
      const double count = double(chunks[i].ties);
      double low;
      rest = two_sum(rest, count * weight(chunks[i], low) * unit, lost);
      lost += count * low * unit;
    }
    rest = two_sum(rest, chunks[i].sum * unit, lost);
    lost += chunks[i].low * unit;
  }
  lost = fast_two_sum(rest, lost);
  const double q = rest / top;
  double low = (std::fma(-q, top, rest) + (lost - q * top_low)) / top;
  const double others = two_sum(double(ties - 1), q, low);
  return {others, low, top};
}

// The probabilities e f of weights e. Processors are slow where a product is subnormal; there the
// digits of 1 + p / 2^-126, rounded once, are the bits of p.
template <class T>
struct Products {
  Vec<T> f, low, up, least;  // f, the rest of it, f over the least normal number, and that over f

  explicit Products(const Vec<T>& factor, const Vec<T>& rest = Vec<T>(T(0)))
      : f(factor), low(rest) {
    constexpr T tiny = std::numeric_limits<T>::min();
    up = mul(f, Vec<T>(1 / tiny));
    T lane[kLanes];
    f.put(lane);
    for (T& x : lane) x = tiny / x;
    least = Vec<T>(lane);
  }
  bool all_normal(const Vec<T>& e) const { return all_less(least, e); }
  Vec<T> normal(const Vec<T>& e) const { return kTwoParts<T> ? fma(e, f, mul(e, low)) : mul(e, f); }
  static T single(T e, T f, T low) { return kTwoParts<T> ? std::fma(e, f, e * low) : e * f; }
  Vec<T> any(const Vec<T>& e) const {
    const Vec<T> small = minus_bits_of_one(fma(e, up, Vec<T>(T(1))));
    return if_less(e, least, small, normal(larger(e, least)));
  }
  Vec<T> operator()(const Vec<T>& e) const { return all_normal(e) ? normal(e) : any(e); }
};

// p = e r 2^(N_i - N - lift).
template <class T>
LOGITLAB_FLATTEN void normalise(const T* e, T* out, int64_t k, double r, double low, double shift,
                                bool stream) {
  const bool near = shift > -50;
  const double unit = pow2((near ? shift : 0) - Range<T>::lift), factor = r * unit;
  int64_t i = 0;
  if (near) {
    const Products<T> products{Vec<T>(T(factor)), Vec<T>(T(low * unit))};
    auto one = [&] { out[i] = products.single(e[i], T(factor), T(low * unit)); };
    if (stream) {
      for (; i < k && reinterpret_cast<uintptr_t>(out + i) % 64; ++i) one();
      for (; i + kLanes <= k; i += kLanes) products(Vec<T>(e + i)).put_streaming(out + i);
    }
    for (; i + kLanes <= k; i += kLanes) products(Vec<T>(e + i)).put(out + i);
    for (; i < k; ++i) one();
  } else {
    const T a = T(factor), b = T(pow2(shift));
    for (; i < k; ++i) out[i] = e[i] * a * b;
  }
}

// The least z - m whose quotient by T does not overflow.
template <class T>
T lowest_of(double t) {
  const double most = std::numeric_limits<T>::max();
  return -T(t < 1 ? most * t : most);
}

// z/T - log sum, -inf where z is or where the result overflows.
template <class T>
struct Logs {
  Vec<T> m, r, r_low, lowest, tail;  // tail is -log sum
  Vec<T> operator()(const Vec<T>& z) const {
    const Vec<T> d = sub(z, m), inside = larger(d, lowest);
    const Vec<T> q = fma(inside, r, fma(inside, r_low, tail));
    // What is inside differs from d only where the result is -inf.
    return fma(sub(d, inside), Vec<T>(std::numeric_limits<T>::max()), q);
  }
};

template <class T>
LOGITLAB_FLATTEN void subtract(const T* z, T* out, int64_t k, const Logs<T>& logs, bool stream) {
  int64_t i = 0;
  auto one = [&] {
    T lane[kLanes] = {z[i]};
    logs(Vec<T>(lane)).put(lane);
    out[i] = lane[0];
  };
  if (stream) {
    for (; i < k && reinterpret_cast<uintptr_t>(out + i) % 64; ++i) one();
    for (; i + kLanes <= k; i += kLanes) logs(Vec<T>(z + i)).put_streaming(out + i);
  }
  for (; i + kLanes <= k; i += kLanes) logs(Vec<T>(z + i)).put(out + i);
  for (; i < k; ++i) one();
}

// One row of contiguous entries, chunk by chunk. `e` is room for k weights (it may be `out`; for
// log_softmax and logsumexp it is not used; null where only the sums are wanted); `chunks` room for
// the chunks.
template <class T>
struct Row {
  Op op;
  const T* z;
  T* out;
  int64_t k;
  const Scale<T>& s;
  T* e;
  Chunk<T>* chunks;
  bool stream;
  double scale = 1;                     // of a gradient
  const Targets<T>* targets = nullptr;  // of the losses, where a label alone is not all

  int64_t count() const { return (k + kChunk - 1) / kChunk; }
  int64_t size(int64_t i) const { return std::min(kChunk, k - i * kChunk); }

  T top(int64_t i) const { return largest(z + i * kChunk, size(i)); }

  // The weights and sum of chunk i with the largest entry `top`, or false where they are out of
  // range.
  bool weigh(int64_t i, T top) const {
    if (!weigh_alone(i, top)) return false;
    if (targets) targets->see(i, z, i * kChunk, size(i), top);
    return true;
  }

  bool weigh_alone(int64_t i, T top) const {
    const T* from = z + i * kChunk;
    T* to = e ? e + i * kChunk : nullptr;
    const T inf = std::numeric_limits<T>::infinity();
    if (top == -inf && std::count(from, from + size(i), top) == size(i)) {
      chunks[i] = {top, -4 * Range<T>::reach, 0, 0, 0};
      if (e && (op == Op::softmax || op == Op::loss_and_gradient))
        std::fill(to, to + size(i), T(0));
      return true;
    }
    // -inf beside NaN goes the same way as everything out of range.
    if (!(std::fabs(top * s.c) < Range<T>::reach)) return false;
    chunks[i] = op == Op::softmax && !e ? chunk<T, false, false>(from, nullptr, size(i), top, s)
                : op == Op::softmax     ? chunk<T, true, false>(from, to, size(i), top, s)
                : op == Op::loss_and_gradient
                    ? chunk<T, true, true>(from, to, size(i), top, s)
                    : chunk<T, false, true>(from, nullptr, size(i), top, s);
    return chunks[i].sum < std::numeric_limits<double>::infinity();
  }

  struct Whole {
    T m, n;
    double factor, low;   // of the weights
    double log, log_low;  // log sum exp((z - m)/T)
    double others;        // of the losses, as in LogSum
    Aim aim;              // with targets
  };
  // What all chunks together say; false where nothing is left, or too little for its last digit.
  bool gather(Whole& w) const {
    w.m = chunks[0].m, w.n = chunks[0].n;
    for (int64_t i = 1; i < count(); ++i) {
      w.m = std::max(w.m, chunks[i].m);
      w.n = std::max(w.n, chunks[i].n);
    }
    if (w.m == -std::numeric_limits<T>::infinity()) return false;
    if (op != Op::softmax) {
      const LogSum sum = log_sum(chunks, count(), w.m, s);
      w.others = sum.others;
      if (op == Op::logsumexp && floor_seen(w.others, k, s.t, w.m)) return false;
      w.log = sum.log(w.log_low);
      if (targets && !aim(w)) return false;
      w.factor = scale * (targets ? w.aim.total : 1) / (sum.top * (1 + sum.others)), w.low = 0;
      return true;
    }
    double sum = 0, lost = 0;
    for (int64_t i = 0; i < count(); ++i) {
      const double unit = pow2(double(chunks[i].n) - double(w.n));
      sum = two_sum(sum, chunks[i].sum * unit, lost);
      lost += chunks[i].low * unit;
    }
    lost = fast_two_sum(sum, lost);
    const Reciprocal factor(sum, lost);
    w.factor = factor.high, w.low = factor.low;
    return true;
  }

  // What the row is held to; false where that is out of range.
  bool aim(Whole& w) const {
    Tally all;
    for (int64_t i = 0; i < count(); ++i) {
      const Tally& t = targets->chunks[i];
      const double down = double(w.m) - double(chunks[i].m);
      all.given += t.given;
      all.rest += chunks[i].m == w.m ? t.rest : t.given;
      all.away += t.away + (t.given > 0 ? t.given * down : 0);
      all.left += t.left;
      all.left_away += t.left_away + (t.left > 0 ? t.left * down : 0);
    }
    w.aim = targets->given
                ? aim_of(all, targets->smoothing)
                : aim_of(all, targets->smoothing, double(z[targets->label]), double(w.m));
    return moderate(w.aim, scale, s.t);
  }

  // The results of chunk i; of logsumexp, that of the row.
  void finish(int64_t i, const Whole& w) const {
    T* to = out + i * kChunk;
    const double shift = double(chunks[i].n) - double(w.n);
    if (targets) {
      T* g = e + i * kChunk;
      normalise(g, g, size(i), w.factor, w.low, shift, false);
      const Step<T> step{Vec<T>(T(-scale * w.aim.a)), Vec<T>(T(-scale * w.aim.b)),
                         Vec<T>(Step<T>::top_of(w.m, w.others)),
                         Vec<T>(Step<T>::at_top_of(w.aim, w.others, scale)),
                         Vec<T>(-std::numeric_limits<T>::infinity())};
      const T* t = targets->given ? targets->given + i * kChunk : nullptr;
      take_step(step, g, z + i * kChunk, t, to, size(i), stream);
    } else if (op == Op::softmax || op == Op::loss_and_gradient)
      normalise(e + i * kChunk, to, size(i), w.factor, w.low, shift, stream);
    else if (op == Op::log_softmax)
      subtract(z + i * kChunk, to, size(i),
               Logs<T>{Vec<T>(w.m), Vec<T>(s.r), Vec<T>(s.r_low), Vec<T>(lowest_of<T>(s.t)),
                       Vec<T>(T(-(w.log + w.log_low)))},
               stream);
    else
      *out = logsumexp_of(w.m, s.t, w.log, w.log_low);
  }

  // All of it on this thread. Where this returns false, the row is out of range and `out` may
  // hold anything: z, which must not be where e is, goes to exact_row.
  bool run(Whole& w) const {
    if (!s.usable) return false;
    for (int64_t i = 0; i < count(); ++i)
      if (!weigh(i, top(i))) return false;
    if (!gather(w)) return false;
    if (op == Op::loss) return true;
    for (int64_t i = 0; i < (op == Op::logsumexp ? 1 : count()); ++i) finish(i, w);
    return true;
  }

  // The same, several chunks a task.
  bool run(int threads, Whole& w) const {
    if (!s.usable) return false;
    struct Share {
      const Row& row;
      int64_t step;
      std::atomic<bool> in_range{true};
      Whole& w;
    } share{*this, std::max<int64_t>(1, count() / (threads * 4)), {true}, w};
    const int64_t tasks = (count() + share.step - 1) / share.step;
    parallel(
        tasks, threads,
        [](const void* context, int64_t task) {
          Share& x = *static_cast<Share*>(const_cast<void*>(context));
          const int64_t end = std::min(x.row.count(), (task + 1) * x.step);
          for (int64_t i = task * x.step; i < end; ++i)
            if (!x.row.weigh(i, x.row.top(i))) x.in_range.store(false, std::memory_order_relaxed);
        },
        &share);
    if (!share.in_range || !gather(w)) return false;
    if (op == Op::loss) return true;
    if (op == Op::logsumexp) {
      finish(0, w);
      return true;
    }
    parallel(
        tasks, threads,
        [](const void* context, int64_t task) {
          const Share& x = *static_cast<const Share*>(context);
          const int64_t end = std::min(x.row.count(), (task + 1) * x.step);
          for (int64_t i = task * x.step; i < end; ++i) x.row.finish(i, x.w);
        },
        &share);
    return true;
  }
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
