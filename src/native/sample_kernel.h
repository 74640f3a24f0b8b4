// Draws from rows by inverse CDF. Every step is a function of the row and its key alone.
//
// Up to one chunk of classes, the weights are the softmax of the row and their running sums, in
// double and in order, are searched for u times the total. A longer row is gone through once for
// the sums of its chunks; u chooses a chunk, whose weights are computed anew and searched for the
// share of it that u has come to. So no category without a weight is drawn, and memory for one
// chunk is enough.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <vector>

#include "batch_runner.h"
#include "cumulative.h"
#include "philox.h"
#include "threads.h"
#include "truncate.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Draws worked on at a time.
constexpr int64_t kDraws = 4096;

// What a thread works on, kept from call to call while it is not large.
template <class T>
struct Desk {
  std::vector<T> own, e, softmax;
  std::vector<double> u, t, before;
  std::vector<uint32_t> index;
  std::vector<Chunk<T>> chunks;
  std::vector<std::pair<int64_t, int64_t>> order;
  Cumulative sums;
  Selector<T> selector;

  static Desk& of_thread() {
    thread_local Desk desk;
    return desk;
  }
  void tidy() {
    if (own.capacity() + softmax.capacity() > size_t(1) << 22) *this = {};
  }
};

template <class S, class T>
class Drawer {
 public:
  explicit Drawer(const Sampling& s)
      : s_(s), b_(s.batch), key_{s.key[0], s.key[1]}, desk_(Desk<T>::of_thread()) {}
  ~Drawer() { desk_.tidy(); }

  void run(int64_t first, int64_t last) {
    const bool plain = s_.cut.count == 0 && s_.replacement && !s_.kept;
    if (plain && b_.k <= kChunk) return blocks(first, last);
    Walk walk(b_, first);
    for (int64_t row = first; row < last; ++row, walk.next()) one(row, walk.here());
  }

 private:
  double temperature(const Offsets& o) const {
    return b_.t ? *reinterpret_cast<const double*>(b_.t + o.t) : b_.temperature;
  }

  // To u_, those of draws [first, first + n) of some rows.
  void uniforms_of(int64_t row, int64_t rows, int64_t first, int64_t n) {
    if (!s_.uniforms) return uniforms_of_rows(key_, s_.row_keys + row, rows, first, n, u_.data());
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(s_.uniforms + (row + r) * s_.n + first, n, u_.data() + r * n);
  }

  // Blocks of rows of one chunk each, through the kernel of softmax.
  void blocks(int64_t first, int64_t last) {
    const int64_t k = b_.k;
    const int64_t width =
        std::clamp<int64_t>(std::min((int64_t(1) << 15) / k, kDraws / s_.n), 1, last - first);
    const int64_t draws = std::min(s_.n, kDraws);
    e_.resize(size_t(width * k));
    u_.resize(size_t(width * draws));
    t_.resize(size_t(width));
    const bool gapless =
        !b_.t && !b_.where && b_.z_step == sizeof(S) &&
        (b_.dims == 0 || (b_.dims == 1 && b_.z_stride[0] == k * int64_t(sizeof(S))));
    Walk walk(b_, first);
    for (int64_t at = first; at < last; at += width) {
      const int64_t rows = std::min(width, last - at);
      if (gapless) {
        widen_all(reinterpret_cast<const S*>(b_.z) + at * k, e_.data(), rows * k);
      } else {
        for (int64_t r = 0; r < rows; ++r, walk.next()) {
          load_row<S>(b_, walk.here(), false, e_.data() + r * k, 1);
          t_[r] = temperature(walk.here());
        }
      }
      weigh(rows);
      for (int64_t j = 0; j < s_.n; j += draws) {
        const int64_t n = std::min(draws, s_.n - j);
        uniforms_of(at, rows, j, n);
        for (int64_t r = 0; r < rows; ++r) {
          if (j == 0 || rows > 1) sums_.set(e_.data() + r * k, k);
          place(u_.data() + r * n, n, s_.found + (at + r) * s_.n + j);
        }
      }
    }
  }

  // The softmax of rows in e_, one after another, at the temperatures of t_.
  void weigh(int64_t rows) {
    Batch b{};
    b.op = Op::softmax, b.kind = sizeof(T) == 4 ? kFloat32 : kFloat64;
    b.z = reinterpret_cast<const char*>(e_.data()), b.out = reinterpret_cast<char*>(e_.data());
    b.temperature = b_.temperature;
    b.t = b_.t ? reinterpret_cast<const char*>(t_.data()) : nullptr;
    b.k = b_.k, b.rows = rows, b.dims = 1;
    b.z_step = b.out_step = sizeof(T);
    b.shape[0] = rows, b.where_stride[0] = 0, b.t_stride[0] = sizeof(double);
    b.z_stride[0] = b.out_stride[0] = b.k * int64_t(sizeof(T));
    b.row_threads = 1, b.stream = false;
    Runner<T, T>(b).run(0, rows);
  }

  // n draws from the weights summed up, by their uniforms.
  void place(double* u, int64_t n, int64_t* found) {
    const double total = sums_.total();
    if (!(total > 0)) {
      std::fill(found, found + n, -1);
      return;
    }
    for (int64_t i = 0; i < n; ++i) u[i] *= total;
    sums_.find(u, n, found);
  }

  // One row of any length, with truncation.
  void one(int64_t row, const Offsets& o) {
    const double t = temperature(o);
    index_.clear();
    k_ = b_.k;
    const bool here = std::is_same_v<S, T> && b_.z_step == sizeof(T) && !b_.where;
    if (here) {
      z_ = reinterpret_cast<const T*>(b_.z + o.z);
    } else {
      z_ = own(k_);
      load_row<S>(b_, o, false, own_.data(), 1);
    }
    const bool some = cut(t);
    if (s_.kept) return keep(row);
    int64_t* found = s_.found + row * s_.n;
    std::fill(found, found + s_.n, -1);
    if (!some) return;
    if (!s_.replacement) return distinct(row, std::fabs(t), found);
    const Scale<T> scale = scale_of<T>(std::fabs(t));
    const int64_t draws = std::min(s_.n, kDraws);
    u_.resize(size_t(draws));
    for (int64_t j = 0; j < s_.n; j += draws) {
      const int64_t n = std::min(draws, s_.n - j);
      uniforms_of(row, 1, j, n);
      if (k_ <= kChunk) {
        if (j == 0) sum_short(scale);
        place(u_.data(), n, found + j);
      } else {
        if (j == 0) sum_long(scale);
        place_long(scale, n, found + j);
      }
    }
    if (!index_.empty() && found[0] >= 0)
      for (int64_t j = 0; j < s_.n; ++j) found[j] = index_[found[j]];
  }

  T* own(int64_t k) {
    if (int64_t(own_.size()) < k) own_.resize(size_t(k));
    return own_.data();
  }

  // Leaves in z_ the entries that the stages keep, in order, and in index_ where they were. False
  // where there is no distribution; index_ empty: nothing was cut.
  bool cut(double t) {
    double at = 1;
    bool some = true;
    auto sign = [&] {
      if (t >= 0) return;
      T* to = own(k_);
      for (int64_t i = 0; i < k_; ++i) to[i] = std::isinf(z_[i]) ? -INFINITY : -z_[i];
      z_ = to;
    };
    for (int i = 0; i < s_.cut.count && some; ++i) {
      const Stage stage = s_.cut.stages[i];
      if (stage == Stage::temperature) {
        sign();
        at = std::fabs(t);
        continue;
      }
      const T m = largest_or_nan(z_, k_);
      some = m > -std::numeric_limits<T>::infinity();
      if (some) compact(selector_.threshold(stage, s_.cut, z_, k_, m, at));
    }
    if (s_.cut.count == 0) sign();
    if (s_.cut.count == 0 && !s_.replacement) return !std::isnan(largest_or_nan(z_, k_));
    return some;
  }

  LOGITLAB_FLATTEN void compact(Threshold<T> limit) {
    const bool fresh = index_.empty();
    if (fresh) {
      int64_t count = 0;
      for (int64_t i = 0; i < k_; ++i) count += z_[i] >= limit.at;
      // Sixteen are written where the next one to keep belongs, but none beyond what z_ has, which
      // may be what is in own_.
      const int64_t room = std::min(count + kLanes, k_);
      index_.resize(size_t(room));
      own(room);
    }
    T* to = own_.data();
    const T lowest = -std::numeric_limits<T>::infinity();
    const int64_t end = limit.at == lowest ? 0 : end_of_ties(limit);
    int64_t n = 0;
    const auto pack = [&](int64_t i, int64_t last, T bar) {
      for (; i + kLanes <= last; i += kLanes) {
        if (all_less(Vec<T>(z_ + i), Vec<T>(limit.at))) continue;
        const uint32_t* number = fresh ? nullptr : index_.data() + i;
        n += pack_above(z_ + i, number, uint32_t(i), bar, to + n, index_.data() + n);
      }
      for (; i < last; ++i) {
        const T x = z_[i];
        if (!(x > bar)) continue;
        to[n] = x;
        index_[n++] = fresh ? uint32_t(i) : index_[i];
      }
    };
    pack(0, end, std::nextafter(limit.at, lowest));
    pack(end, k_, limit.at);
    z_ = to, k_ = n;
  }

  // Where the ties that are kept end.
  int64_t end_of_ties(const Threshold<T>& limit) const {
    if (limit.ties == kAllTies) return k_;
    int64_t left = limit.ties, i = 0;
    for (; i < k_ && left; i += kChunk) {
      const int64_t size = std::min(kChunk, k_ - i);
      int64_t ties = 0;
      for (int64_t j = i; j < i + size; ++j) ties += z_[j] == limit.at;
      if (ties >= left) break;
      left -= ties;
    }
    for (; i < k_ && left; ++i) left -= z_[i] == limit.at;
    return std::min(i, k_);
  }

  LOGITLAB_FLATTEN void keep(int64_t row) {
    uint8_t* kept = s_.kept + row * b_.k;
    if (index_.empty()) {
      std::fill(kept, kept + b_.k, 1);
      return;
    }
    std::fill(kept, kept + b_.k, 0);
    for (int64_t i = 0; i < k_; ++i) kept[index_[i]] = 1;
  }

  void softmax(T* e, const Scale<T>& scale) {
    const int64_t count = (k_ + kChunk - 1) / kChunk;
    chunks_.resize(size_t(count));
    const Row<T> row{Op::softmax, z_, e, k_, scale, e, chunks_.data(), false};
    typename Row<T>::Whole whole;
    if (!row.run(whole)) exact_row(Op::softmax, z_, e, k_, scale.t);
  }

  void sum_short(const Scale<T>& scale) {
    e_.resize(size_t(kChunk));
    softmax(e_.data(), scale);
    sums_.set(e_.data(), k_);
  }

  // The sums of the chunks, one after another; where the row is out of range, those of its
  // softmax, which then has to be kept.
  void sum_long(const Scale<T>& scale) {
    const int64_t count = (k_ + kChunk - 1) / kChunk;
    chunks_.resize(size_t(count));
    const Row<T> row{Op::softmax, z_, nullptr, k_, scale, nullptr, chunks_.data(), false};
    top_ = std::numeric_limits<T>::quiet_NaN();
    if (scale.t == 0) return count_ties(count);
    std::atomic<bool> in_range{scale.usable};
    share_out(scale.usable ? count : 0, b_.row_threads, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last && in_range; ++i)
        if (!row.weigh(i, row.top(i))) in_range = false;
    });
    kept_weights_ = !in_range;
    before_.assign(size_t(count) + 1, 0.0);
    if (kept_weights_) {
      long_.resize(size_t(k_));
      softmax(long_.data(), scale);
      for (int64_t i = 0; i < count; ++i) {
        double sum = 0;
        for (int64_t j = i * kChunk; j < std::min(k_, (i + 1) * kChunk); ++j)
          sum += double(long_[j]);
        before_[i + 1] = before_[i] + sum;
      }
      return;
    }
    T n = chunks_[0].n;
    for (const Chunk<T>& c : chunks_) n = std::max(n, c.n);
    for (int64_t i = 0; i < count; ++i)
      before_[i + 1] = before_[i] + chunks_[i].sum * pow2(double(chunks_[i].n) - double(n));
  }

  // At T = 0 all weights are 1 or 0; a row with NaN, or of -inf alone, has none.
  void count_ties(int64_t count) {
    const T m = largest_or_nan(z_, k_);
    if (m > -std::numeric_limits<T>::infinity()) top_ = m;
    kept_weights_ = false;
    before_.assign(size_t(count) + 1, 0.0);
    for (int64_t i = 0; i < count; ++i) {
      int64_t ties = 0;
      for (int64_t j = i * kChunk; j < std::min(k_, (i + 1) * kChunk); ++j) ties += z_[j] == top_;
      before_[i + 1] = before_[i] + double(ties);
    }
  }

  // The weights of chunk i, of -inf none.
  void weigh_chunk(int64_t i, const Scale<T>& scale) {
    const int64_t from = i * kChunk, size = std::min(kChunk, k_ - from);
    if (kept_weights_) return sums_.set(long_.data() + from, size);
    e_.resize(size_t(kChunk));
    if (!std::isnan(top_)) {
      for (int64_t j = 0; j < size; ++j) e_[j] = z_[from + j] == top_;
      return sums_.set(e_.data(), size);
    }
    chunk<T, true, false>(z_ + from, e_.data(), size, chunks_[i].m, scale);
    const T lowest = -std::numeric_limits<T>::infinity();
    int64_t j = 0;
    for (; j + kLanes <= size; j += kLanes)
      unless_equal(Vec<T>(z_ + from + j), Vec<T>(lowest), Vec<T>(e_.data() + j)).put(e_.data() + j);
    for (; j < size; ++j) e_[j] = z_[from + j] == lowest ? T(0) : e_[j];
    sums_.set(e_.data(), size);
  }

  void place_long(const Scale<T>& scale, int64_t n, int64_t* found) {
    const int64_t count = int64_t(before_.size()) - 1;
    const double total = before_[count];
    if (!(total > 0)) {
      std::fill(found, found + n, -1);
      return;
    }
    // Draws by chunk, so that each chunk is weighed once.
    order_.resize(size_t(n));
    for (int64_t j = 0; j < n; ++j) {
      const double target = u_[j] * total;
      int64_t i =
          std::upper_bound(before_.begin() + 1, before_.end(), target) - before_.begin() - 1;
      if (i == count)
        i = std::lower_bound(before_.begin(), before_.end(), total) - before_.begin() - 1;
      order_[j] = {i, j};
      u_[j] = (target - before_[i]) / (before_[i + 1] - before_[i]);
    }
    if (n > 1) std::sort(order_.begin(), order_.end());
    int64_t weighed = -1;
    for (const auto& [i, j] : order_) {
      if (i != weighed) weigh_chunk(weighed = i, scale);
      double target = u_[j] * sums_.total();
      sums_.find(&target, 1, found + j);
      found[j] += i * kChunk;
    }
  }

  // The n largest of z/t plus Gumbel noise, -log of an exponential; the uniform of a category is
  // that of its number in the row.
  void distinct(int64_t row, double t, int64_t* found);
  using Drawn = std::pair<double, int64_t>;
  static bool better(const Drawn& a, const Drawn& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  }
  // At most n of entries [first, last); m is the largest of all.
  void best_of(int64_t row, double t, double m, int64_t first, int64_t last,
               std::vector<Drawn>& best) const;

  const Sampling& s_;
  const Batch& b_;
  const Key key_;
  const T* z_ = nullptr;
  int64_t k_ = 0;
  T top_ = 0;  // the largest entry, where only it and its ties have a weight; else NaN
  bool kept_weights_ = false;
  Desk<T>& desk_;
  std::vector<T>&own_ = desk_.own, &e_ = desk_.e, &long_ = desk_.softmax;
  std::vector<double>&u_ = desk_.u, &t_ = desk_.t, &before_ = desk_.before;
  std::vector<uint32_t>& index_ = desk_.index;
  std::vector<Chunk<T>>& chunks_ = desk_.chunks;
  std::vector<std::pair<int64_t, int64_t>>& order_ = desk_.order;
  Cumulative& sums_ = desk_.sums;
  Selector<T>& selector_ = desk_.selector;
};

template <class S, class T>
void Drawer<S, T>::distinct(int64_t row, double t, int64_t* found) {
  const double m = double(largest(z_, k_));
  std::mutex mutex;
  std::vector<Drawn> all;
  share_out(k_, b_.row_threads, [&](int64_t first, int64_t last) {
    std::vector<Drawn> best;  // a heap, the worst of them in front
    best_of(row, t, m, first, last, best);
    const std::lock_guard lock(mutex);
    all.insert(all.end(), best.begin(), best.end());
  });
  std::sort(all.begin(), all.end(), better);
  for (int64_t j = 0; j < std::min(s_.n, int64_t(all.size())); ++j)
    found[j] = index_.empty() ? all[j].second : int64_t(index_[all[j].second]);
}

// Whether no q plus its noise comes to `least`. An exponential -log(1 - u) is at least u, so that
// the noise is at most -log u, and that at most -log 2 times the exponent of u. A margin is for
// roundings.
inline bool all_worse(const double* q, const double* u, double least) {
  const Vec<double> big(0x1p52), bias(0x1p52 + 1023), step(-kLn2), bar(least - 1e-9);
  for (int l = 0; l < kBlocks; l += kLanes) {
    const Vec<double> exponent = sub(add_bits(exponent_bits(Vec<double>(u + l)), big), bias);
    if (!all_less(fma(exponent, step, Vec<double>(q + l)), bar)) return false;
  }
  return true;
}

template <class S, class T>
LOGITLAB_FLATTEN void Drawer<S, T>::best_of(int64_t row, double t, double m, int64_t first,
                                            int64_t last, std::vector<Drawn>& best) const {
  const double inf = std::numeric_limits<double>::infinity();
  const bool only_top = t == 0 || m == inf;
  const auto ratio = [](double z, double m, double t) {
    return z - m == -std::numeric_limits<double>::infinity() ? (z / 2 - m / 2) / (t / 2)
                                                             : (z - m) / t;
  };
  uint64_t low[kBlocks], number[kBlocks];
  double u[kBlocks], q[kBlocks], score[kBlocks];
  std::fill(low, low + kBlocks, s_.row_keys[row]);
  std::fill(q, q + kBlocks, -inf);
  for (int64_t i = first; i < last; i += kBlocks) {
    const int64_t size = std::min<int64_t>(kBlocks, last - i);
    for (int64_t l = 0; l < size; ++l) {
      number[l] = uint64_t(index_.empty() ? i + l : int64_t(index_[i + l]));
      const double z = double(z_[i + l]);
      q[l] = z == -inf ? -inf : z == m ? 0 : only_top ? -inf : t == inf ? 0 : ratio(z, m, t);
    }
    uniforms(key_, low, number, u);
    const bool full = int64_t(best.size()) == s_.n;
    if (full && all_worse(q, u, best.front().first)) continue;
    for (double& x : u) x = std::min(x, 1 - 0x1p-53);
    for (int l = 0; l < kBlocks; l += kLanes) {
      const Vec<double> v(u + l), one(1.0);
      const Vec<double> e = log1p_lanes(div(v, sub(one, v)));
      // log E = log(1 + (2^65 E - 1)) - 65 log 2, whose argument is not negative.
      sub(Vec<double>(65 * kLn2), log1p_lanes(fms(e, Vec<double>(0x1p65), one))).put(score + l);
    }
    for (int64_t l = 0; l < size; ++l) {
      if (!(q[l] > -inf)) continue;
      const Drawn one{score[l] + q[l], i + l};
      if (int64_t(best.size()) < s_.n) {
        best.push_back(one);
        std::push_heap(best.begin(), best.end(), better);
      } else if (better(one, best.front())) {
        std::pop_heap(best.begin(), best.end(), better);
        best.back() = one;
        std::push_heap(best.begin(), best.end(), better);
      }
    }
  }
}

void sample_rows(const Sampling& s, int64_t first, int64_t last) {
  switch (s.batch.kind) {
    case kFloat32:
      return Drawer<float, float>(s).run(first, last);
    case kFloat64:
      return Drawer<double, double>(s).run(first, last);
    case kFloat16:
      return Drawer<Half, float>(s).run(first, last);
    case kBFloat16:
      return Drawer<BFloat, float>(s).run(first, last);
  }
}

}  // namespace

extern const Sample sample;
const Sample sample = sample_rows;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
