// The rows of a batch, of any layout and type, through the kernels of one instruction set.
#pragma once

#include "layout.h"
#include "losses.h"
#include "small_rows.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class S, class T>
class Runner {
  static constexpr bool kSame = std::is_same_v<S, T>;

 public:
  explicit Runner(const Batch& b)
      : b_(b),
        direct_(direct(b)),
        plain_(!b.where && !b.t && b.temperature >= 0),
        gapless_(gapless(b)),
        one_(scale_of<T>(std::fabs(b.temperature))),
        lanes_(b.op, b.k) {
    if (!b.t)
      for (int r = 0; r < kLanes; ++r) lanes_.set(r, one_);
  }

  void run(int64_t first, int64_t last) {
    thread_local Room room;
    const bool few = b_.k <= kFew;
    // As many rows at a time as stay in the second cache, sixteen at most: neighbouring rows
    // share cache lines where the class axis is not the last.
    const int64_t width = few ? kLanes : std::clamp<int64_t>((1 << 17) / b_.k, 1, kLanes);
    const int64_t pitch = (b_.k + kLanes - 1) / kLanes * kLanes + kLanes;
    const int64_t count = (b_.k + kChunk - 1) / kChunk;
    // Blocks of four entries may reach beyond the last.
    const int64_t spare = std::max(width > 1 ? kAbreast * pitch : pitch, kTail * kLanes);
    const int64_t targets = b_.targets ? kTail * kLanes : 0;
    rows_ = static_cast<T*>(
        room.get((pitch * width + spare + targets) * sizeof(T) + count * sizeof(Chunk<T>)));
    spare_ = rows_ + pitch * width;
    targets_ = spare_ + spare;
    chunks_ = reinterpret_cast<Chunk<T>*>(targets_ + targets);
    if (few && plain_ && gapless_)
      for (; first + kLanes <= last; first += kLanes) across_gapless(first);
    if (first == last) return;
    Walk walk(b_, first);
    for (int64_t at = first; at < last; at += width) {
      const int size = int(std::min(width, last - at));
      for (int r = 0; r < size; ++r, walk.next()) {
        offsets_[r] = walk.here();
        t_[r] = b_.t ? *reinterpret_cast<const double*>(b_.t + walk.here().t) : b_.temperature;
      }
      if (few)
        across(at, size);
      else
        along(size, pitch);
    }
    room.trim(size_t(1) << 25);
  }

 private:
  // Whether rows can be read and written where they are.
  static bool direct(const Batch& b) {
    return kSame && !b.where && b.z_step == sizeof(T) &&
           (b.out_step == sizeof(T) || b.op == Op::logsumexp);
  }

  bool in_place(int r) const { return direct_ && t_[r] >= 0; }

  void along(int size, int64_t pitch) {
    if (columns(size)) return;
    const bool strip = size > 1 && b_.z_step != sizeof(S) && !b_.where;
    if (strip) {
      strip_in(size, pitch);
    } else {
      for (int r = 0; r < size; ++r)
        if (!in_place(r)) load_row<S>(b_, offsets_[r], t_[r] < 0, rows_ + r * pitch, 1);
    }
    int first = 0;
    if (b_.k <= kChunk && !b_.t)
      for (; first + kAbreast <= size; first += kAbreast) abreast(first, pitch, strip);
    for (int r = first; r < size; ++r) {
      T* buffer = rows_ + r * pitch;
      const T* z = in_place(r) ? reinterpret_cast<const T*>(b_.z + offsets_[r].z) : buffer;
      T* out = in_place(r) ? reinterpret_cast<T*>(b_.out + offsets_[r].out) : buffer;
      T lse;
      one(z, b_.op == Op::logsumexp ? &lse : out, t_[r], b_.stream && in_place(r));
      if (b_.op == Op::logsumexp)
        narrow_to(t_[r] < 0 ? -lse : lse, *reinterpret_cast<S*>(b_.out + offsets_[r].out));
      else if (!in_place(r) && !strip)
        store_row<S>(b_, offsets_[r], out, 1);
    }
    if (strip && b_.op != Op::logsumexp) strip_out(size, pitch);
  }

  // Rows of one chunk, step by step together: the end of one step of a row, where each
  // instruction waits for the one before it, runs beside the next row's.
  static constexpr int kAbreast = 4;

  void abreast(int first, int64_t pitch, bool strip) {
    Chunk<T> chunks[kAbreast];
    T top[kAbreast], lse[kAbreast];
    bool good[kAbreast];
    typename Row<T>::Whole whole[kAbreast];
    auto row = [&](int i) {
      const int r = first + i;
      T* buffer = rows_ + r * pitch;
      const bool here = in_place(r), stream = b_.stream && here;
      const T* z = here ? reinterpret_cast<const T*>(b_.z + offsets_[r].z) : buffer;
      T* out = b_.op == Op::logsumexp ? lse + i
               : here                 ? reinterpret_cast<T*>(b_.out + offsets_[r].out)
                                      : buffer;
      T* e = stream || z == out ? spare_ + i * pitch : out;
      return Row<T>{b_.op, z, out, b_.k, one_, e, chunks + i, stream};
    };
    for (int i = 0; i < kAbreast; ++i) top[i] = row(i).top(0);
    for (int i = 0; i < kAbreast; ++i) good[i] = one_.usable && row(i).weigh(0, top[i]);
    for (int i = 0; i < kAbreast; ++i) good[i] = good[i] && row(i).gather(whole[i]);
    for (int i = 0; i < kAbreast; ++i) {
      const Row<T> x = row(i);
      if (good[i])
        x.finish(0, whole[i]);
      else
        exact_row(b_.op, x.z, x.out, b_.k, std::fabs(t_[first + i]));
      const Offsets& o = offsets_[first + i];
      if (b_.op == Op::logsumexp)
        narrow_to(t_[first + i] < 0 ? -lse[i] : lse[i], *reinterpret_cast<S*>(b_.out + o.out));
      else if (!in_place(first + i) && !strip)
        store_row<S>(b_, o, x.out, 1);
    }
  }

  void one(const T* z, T* out, double t, bool stream) {
    Scale<T> own;
    if (b_.t) own = scale_of<T>(std::fabs(t));
    const Scale<T>& s = b_.t ? own : one_;
    // z is kept until the row is known to be in range.
    T* e = stream || z == out ? spare_ : out;
    const Row<T> row{b_.op, z, out, b_.k, s, e, chunks_, stream};
    typename Row<T>::Whole whole;
    if (!(b_.row_threads > 1 ? row.run(b_.row_threads, whole) : row.run(whole)))
      exact_row(b_.op, z, out, b_.k, std::fabs(t));
  }

  // Whether the rows of a block are columns side by side.
  bool side_by_side(int64_t Offsets::* at, int size) const {
    if (!kSame) return false;
    for (int r = 1; r < size; ++r)
      if (offsets_[r].*at - offsets_[r - 1].*at != int64_t(sizeof(T))) return false;
    return true;
  }

  // Sixteen rows side by side, where they lie; false where that is not what they are.
  bool columns(int size) {
    if (!plain_ || !one_.usable || size != kLanes || b_.k > kChunk ||
        !side_by_side(&Offsets::z, size) ||
        (b_.op != Op::logsumexp && !side_by_side(&Offsets::out, size)))
      return false;
    if constexpr (kSame) {
      const int64_t step = b_.z_step / int64_t(sizeof(T)),
                    out_step = b_.out_step / int64_t(sizeof(T));
      Columns<T> columns(b_.op, reinterpret_cast<const T*>(b_.z + offsets_[0].z), step, b_.k, one_,
                         rows_);
      if (!columns.weigh()) return false;
      T* out = reinterpret_cast<T*>(b_.out + offsets_[0].out);
      if (b_.op == Op::softmax) {
        columns.softmax(out, out_step);
      } else if (b_.op == Op::log_softmax) {
        columns.log_softmax(out, out_step);
      } else {
        T lse[kLanes];
        if (!columns.logsumexp(lse)) return false;
        for (int r = 0; r < size; ++r) *reinterpret_cast<T*>(b_.out + offsets_[r].out) = lse[r];
      }
    }
    return kSame;
  }

  // Several columns at a time, as the memory lies.
  void strip_in(int size, int64_t pitch) {
    const T inf = std::numeric_limits<T>::infinity();
    int64_t i = 0;
    int turned = 0;
    if (plain_ && side_by_side(&Offsets::z, size)) {
      const T* z = reinterpret_cast<const T*>(b_.z + offsets_[0].z);
      const int64_t step = b_.z_step / int64_t(sizeof(T));
      turned = size / 4 * 4;
      for (; i + 4 <= b_.k; i += 4)
        for (int r = 0; r < turned; r += 4)
          transpose4(z + i * step + r, step, rows_ + r * pitch + i, pitch);
    }
    auto rest = [&](int64_t i, int first) {
      for (int r = first; r < size; ++r) {
        const T x = widened(*reinterpret_cast<const S*>(b_.z + offsets_[r].z + i * b_.z_step));
        rows_[r * pitch + i] = t_[r] < 0 && x != -inf ? -x : x;
      }
    };
    if (turned < size)
      for (int64_t j = 0; j < i; ++j) rest(j, turned);
    for (; i < b_.k; ++i) rest(i, 0);
  }

  void strip_out(int size, int64_t pitch) {
    int64_t i = 0;
    int turned = 0;
    if (side_by_side(&Offsets::out, size)) {
      T* out = reinterpret_cast<T*>(b_.out + offsets_[0].out);
      const int64_t step = b_.out_step / int64_t(sizeof(T));
      turned = size / 4 * 4;
      for (; i + 4 <= b_.k; i += 4)
        for (int r = 0; r < turned; r += 4)
          transpose4(rows_ + r * pitch + i, pitch, out + i * step + r, step);
    }
    auto rest = [&](int64_t i, int first) {
      for (int r = first; r < size; ++r)
        narrow_to(rows_[r * pitch + i],
                  *reinterpret_cast<S*>(b_.out + offsets_[r].out + i * b_.out_step));
    };
    if (turned < size)
      for (int64_t j = 0; j < i; ++j) rest(j, turned);
    for (; i < b_.k; ++i) rest(i, 0);
  }

  // Whether all rows lie one after another in z and out.
  static bool gapless(const Batch& b) {
    const int64_t row = b.k * int64_t(sizeof(S));
    return b.dims <= 1 && b.z_step == sizeof(S) && (b.dims == 0 || b.z_stride[0] == row) &&
           (b.op == Op::logsumexp || b.op == Op::loss ||
            (b.out_step == sizeof(S) && (b.dims == 0 || b.out_stride[0] == row)));
  }

  // Sixteen rows at once from `row` on, of a batch that is gapless and plain.
  void across_gapless(int64_t row) {
    const int64_t size = kLanes * b_.k;
    T block[kSame ? 1 : kLanes * kFew];
    const S* z = reinterpret_cast<const S*>(b_.z) + row * b_.k;
    if constexpr (kSame) {
      turn_in(z, b_.k, rows_);
    } else {
      widen_all(z, block, size);
      turn_in(block, b_.k, rows_);
    }
    lanes(row, kLanes);
    if (b_.op == Op::loss) return;
    if (b_.op == Op::logsumexp) {
      const int64_t step = b_.dims ? b_.out_stride[0] : 0;
      for (int r = 0; r < kLanes; ++r)
        narrow_to(spare_[r], *reinterpret_cast<S*>(b_.out + (row + r) * step));
      return;
    }
    S* out = reinterpret_cast<S*>(b_.out) + row * b_.k;
    if constexpr (kSame) {
      turn_out(spare_, b_.k, out);
    } else {
      turn_out(spare_, b_.k, block);
      narrow_all(block, out, size);
    }
  }

  // The results of `size` rows from `row` on, which lie in the lanes.
  void lanes(int64_t row, int size) {
    if (b_.op == Op::loss_and_gradient)
      for (int r = 0; r < size; ++r) lanes_.set_scale(r, std::fabs(b_.scale[row + r]));
    int64_t label[kLanes] = {};
    if (b_.targets || b_.smoothing > 0) {
      for (int r = 0; b_.label && r < size; ++r) label[r] = std::max<int64_t>(b_.label[row + r], 0);
      if (b_.targets) targets_in(row, size);
      lanes_.hold(b_.targets ? targets_ : nullptr, label, b_.smoothing);
    }
    lanes_.run(rows_, spare_);
    if (b_.loss) return losses(row, size);
    if (lanes_.all_in_range()) return;
    for (int r = 0; r < size; ++r)
      if (!lanes_.in_range(r)) mend(r);
  }

  // The distributions of `size` rows from `row` on into lanes.
  void targets_in(int64_t row, int size) {
    const T* y = static_cast<const T*>(b_.targets) + row * b_.k;
    if (size == kLanes) return turn_in(y, b_.k, targets_);
    for (int r = 0; r < size; ++r)
      for (int64_t i = 0; i < b_.k; ++i) targets_[i * kLanes + r] = y[r * b_.k + i];
  }

  void losses(int64_t row, int size) {
    const bool gradient = b_.op == Op::loss_and_gradient;
    for (int r = 0; r < size; ++r) {
      const int64_t label = b_.label ? b_.label[row + r] : -1;
      double& loss = b_.loss[row + r];
      if (b_.label && label < 0) {
        loss = 0;
        for (int64_t i = 0; gradient && i < b_.k; ++i) spare_[i * kLanes + r] = 0;
      } else if (lanes_.in_range(r) && lanes_.moderate(r)) {
        loss = lanes_.loss(r, label, spare_);
      } else {
        T z[kFew], out[kFew];
        for (int64_t i = 0; i < b_.k; ++i) z[i] = rows_[i * kLanes + r];
        const double scale = gradient ? std::fabs(b_.scale[row + r]) : 1;
        loss = exact_loss(z, gradient ? out : nullptr, b_.k, targets_of<T>(b_, row + r, nullptr),
                          std::fabs(temperature(r)), scale);
        for (int64_t i = 0; gradient && i < b_.k; ++i) spare_[i * kLanes + r] = out[i];
      }
      if (gradient && b_.scale[row + r] < 0)
        for (int64_t i = 0; i < b_.k; ++i) spare_[i * kLanes + r] = -spare_[i * kLanes + r];
    }
  }

  void across(int64_t row, int size) {
    const bool columns = plain_ && size == kLanes && side_by_side(&Offsets::z, size);
    for (int64_t i = 0; columns && i < b_.k; ++i)
      Vec<T>(reinterpret_cast<const T*>(b_.z + offsets_[0].z + i * b_.z_step))
          .put(rows_ + i * kLanes);
    for (int r = 0; !columns && r < size; ++r)
      load_row<S>(b_, offsets_[r], t_[r] < 0, rows_ + r, kLanes);
    if (b_.t)
      for (int r = 0; r < size; ++r) lanes_.set(r, scale_of<T>(std::fabs(t_[r])));
    lanes(row, size);
    if (b_.op == Op::loss) return;
    if (columns && b_.op != Op::logsumexp && side_by_side(&Offsets::out, size)) {
      for (int64_t i = 0; i < b_.k; ++i)
        Vec<T>(spare_ + i * kLanes)
            .put(reinterpret_cast<T*>(b_.out + offsets_[0].out + i * b_.out_step));
      return;
    }
    for (int r = 0; r < size; ++r) {
      if (b_.op == Op::logsumexp)
        narrow_to(t_[r] < 0 ? -spare_[r] : spare_[r],
                  *reinterpret_cast<S*>(b_.out + offsets_[r].out));
      else
        store_row<S>(b_, offsets_[r], spare_ + r, kLanes);
    }
  }

  double temperature(int r) const { return b_.t ? t_[r] : b_.temperature; }

  // A row out of the lanes' range.
  void mend(int r) {
    T z[kFew], out[kFew];
    for (int64_t i = 0; i < b_.k; ++i) z[i] = rows_[i * kLanes + r];
    exact_row(b_.op, z, out, b_.k, std::fabs(temperature(r)));
    const int64_t count = b_.op == Op::logsumexp ? 1 : b_.k;
    for (int64_t i = 0; i < count; ++i) spare_[i * kLanes + r] = out[i];
  }

  const Batch& b_;
  const bool direct_, plain_, gapless_;
  const Scale<T> one_;
  Lanes<T> lanes_;
  T *rows_, *spare_, *targets_;
  Chunk<T>* chunks_;
  Offsets offsets_[kLanes];
  double t_[kLanes];
};

template <class S, class T>
void run_kind(const Batch& b, int64_t first, int64_t last) {
  if (b.loss && b.k > kFew)
    Losses<S, T>(b).run(first, last);
  else
    Runner<S, T>(b).run(first, last);
}

void run_rows(const Batch& b, int64_t first, int64_t last) {
  switch (b.kind) {
    case kFloat32:
      return run_kind<float, float>(b, first, last);
    case kFloat64:
      return run_kind<double, double>(b, first, last);
    case kFloat16:
      return run_kind<Half, float>(b, first, last);
    case kBFloat16:
      return run_kind<BFloat, float>(b, first, last);
  }
}

}  // namespace

extern const Run run;
const Run run = run_rows;

}  // namespace LOGITLAB_ISA
}  // namespace logitlab
