// Where the rows of a batch lie, and the way of one into contiguous memory and back.
#pragma once

#include <limits>
#include <memory>
#include <new>

#include "batch.h"
#include "half.h"
#include "simd.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Memory that a thread keeps from call to call, up to a size; aligned for every register.
class Room {
 public:
  void* get(size_t bytes) {
    if (bytes > size_) {
      data_.reset();
      data_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t(64))));
      size_ = bytes;
    }
    return data_.get();
  }
  void trim(size_t bytes) {
    if (size_ > bytes) data_.reset(), size_ = 0;
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<char, Free> data_;
  size_t size_ = 0;
};

// Where a row's entries lie, relative to the arrays.
struct Offsets {
  int64_t z = 0, out = 0, where = 0, t = 0;
};

// Counts through the rows of a batch.
class Walk {
 public:
  Walk(const Batch& b, int64_t row) : b_(b) {
    for (int d = b.dims - 1; d >= 0; --d) {
      at_[d] = row % b.shape[d];
      row /= b.shape[d];
      move(d, at_[d]);
    }
  }
  const Offsets& here() const { return o_; }
  void next() {
    for (int d = b_.dims - 1; d >= 0; --d) {
      move(d, 1);
      if (++at_[d] < b_.shape[d]) return;
      move(d, -at_[d]);
      at_[d] = 0;
    }
  }

 private:
  void move(int d, int64_t n) {
    o_.z += n * b_.z_stride[d];
    o_.out += n * b_.out_stride[d];
    o_.where += n * b_.where_stride[d];
    o_.t += n * b_.t_stride[d];
  }
  const Batch& b_;
  int64_t at_[kMaxDims];
  Offsets o_;
};

template <class S, class T>
void load_row(const Batch& b, const Offsets& o, bool negate, T* row, int64_t step) {
  const T inf = std::numeric_limits<T>::infinity();
  const char* from = b.z + o.z;
  if (b.z_step == sizeof(S) && !b.where && !negate) {
    const S* z = reinterpret_cast<const S*>(from);
    if (step == 1) return widen_all(z, row, b.k);
    for (int64_t i = 0; i < b.k; ++i) row[i * step] = widened(z[i]);
    return;
  }
  for (int64_t i = 0; i < b.k; ++i) {
    const T x = widened(*reinterpret_cast<const S*>(from + i * b.z_step));
    const bool left = x != -inf && (!b.where || b.where[o.where + i * b.where_step]);
    row[i * step] = left ? (negate ? -x : x) : -inf;
  }
}

template <class S, class T>
void store_row(const Batch& b, const Offsets& o, const T* row, int64_t step) {
  char* to = b.out + o.out;
  if (step == 1 && b.out_step == sizeof(S)) return narrow_all(row, reinterpret_cast<S*>(to), b.k);
  for (int64_t i = 0; i < b.k; ++i)
    narrow_to(row[i * step], *reinterpret_cast<S*>(to + i * b.out_step));
}

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
