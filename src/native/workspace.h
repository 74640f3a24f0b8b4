// Uninitialised memory that a thread keeps between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "memory.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Memory aligned for every register; it has no contents after it grows.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  ~Workspace() { release(); }

  void* reserve(size_t bytes) {
    if (bytes > size_) {
      release();
      // A large one is freed after the call, and its pages are used again by the next one.
      data_ = bytes >= kLarge ? allocate_result(bytes) : allocate_workspace(bytes);
      size_ = bytes;
    }
    return data_;
  }
  void release_above(size_t bytes) {
    if (size_ > bytes) release();
  }

 private:
  static constexpr size_t kLarge = size_t(1) << 25;
  void release() {
    if (size_ >= kLarge)
      free_result(data_);
    else
      free_workspace(data_);
    data_ = nullptr, size_ = 0;
  }
  void* data_ = nullptr;
  size_t size_ = 0;
};

// An array of numbers, or of structures of numbers, that grows.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  ~Buffer() { free_workspace(data_); }

  // Entries beyond the old size are uninitialised.
  void resize(int64_t size) {
    if (size > capacity_) reallocate(size);
    size_ = size;
  }
  void push_back(T x) {
    if (size_ == capacity_) reallocate(2 * size_ + 16);
    data_[size_++] = x;
  }
  void append(const T* x, int64_t n) {
    if (size_ + n > capacity_) reallocate(2 * size_ + n);
    if (n) std::memcpy(data_ + size_, x, size_t(n) * sizeof(T));
    size_ += n;
  }
  void clear() { size_ = 0; }
  void release() {
    free_workspace(data_);
    data_ = nullptr, size_ = capacity_ = 0;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t capacity() const { return capacity_; }

 private:
  void reallocate(int64_t capacity) {
    T* const data = static_cast<T*>(allocate_workspace(size_t(capacity) * sizeof(T)));
    if (size_) std::memcpy(data, data_, size_t(size_) * sizeof(T));
    free_workspace(data_);
    data_ = data, capacity_ = capacity;
  }
  T* data_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
