#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace logitlab {
namespace {

constexpr size_t kPage = size_t(1) << 21;           // a huge page
constexpr size_t kMaxFree = size_t(1) << 29;        // bytes of free blocks
constexpr size_t kMaxResident = size_t(160) << 20;  // of which the system may not reclaim so many

struct Block {
  char* data = nullptr;
  size_t size = 0;
  bool resident = true;  // false where the system may reclaim the pages
};

struct Store {
  std::mutex mutex;
  std::vector<Block> used, free;  // free: in the order of their release
  size_t free_bytes = 0;
};
Store& store = *new Store;  // never destroyed, as results may outlive static objects

constexpr std::align_val_t kAlignment{64};

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) {
    std::snprintf(text_, sizeof text_, "unable to allocate %zu bytes", bytes);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[64];
};

void* allocate_or_throw(size_t bytes, std::align_val_t alignment) {
  void* data = ::operator new(bytes, alignment, std::nothrow);
  if (!data) throw OutOfMemory(bytes);
  return data;
}

Block allocate(size_t size) {
  char* data = static_cast<char*>(allocate_or_throw(size, std::align_val_t(kPage)));
#if defined(__linux__)
  madvise(data, size, MADV_HUGEPAGE);
#endif
  return {data, size, true};
}

void release(Block b) { ::operator delete(b.data, std::align_val_t(kPage)); }

void release_free_blocks() {
  for (const Block& b : store.free) release(b);
  store.free.clear();
  store.free_bytes = 0;
}

// Lets the system reclaim all free blocks but those released last, when it needs memory. Marking a
// page costs as much as writing it.
void mark_reclaimable() {
  size_t resident = 0;
  for (auto b = store.free.rbegin(); b != store.free.rend(); ++b) {
    resident += b->size;
    if (resident <= kMaxResident || !b->resident) continue;
#if defined(__linux__) && defined(MADV_FREE)
    madvise(b->data, b->size, MADV_FREE);
#endif
    b->resident = false;
  }
}

}  // namespace

void* allocate_workspace(size_t bytes) { return allocate_or_throw(bytes, kAlignment); }
void free_workspace(void* data) { ::operator delete(data, kAlignment); }

void* allocate_result(size_t bytes) {
  if (bytes > std::numeric_limits<size_t>::max() - kPage) throw OutOfMemory(bytes);
  const size_t size = (bytes + kPage - 1) / kPage * kPage;
  const std::lock_guard lock(store.mutex);
  auto fits = [&](const Block& b) { return b.size >= size && b.size <= size + size / 4; };
  const auto found = std::find_if(store.free.rbegin(), store.free.rend(), fits);
  if (found != store.free.rend()) {
    Block b = *found;
    b.resident = true;
    store.free.erase(std::next(found).base());
    store.free_bytes -= b.size;
    store.used.push_back(b);
    return b.data;
  }
  // free_result must not need memory.
  store.used.reserve(store.used.size() + 1);
  store.free.reserve(store.free.size() + store.used.size() + 1);
  Block b;
  try {
    b = allocate(size);
  } catch (const std::bad_alloc&) {
    release_free_blocks();
    b = allocate(size);
  }
  store.used.push_back(b);
  return b.data;
}

void free_result(void* data) {
  const std::lock_guard lock(store.mutex);
  const auto at = std::find_if(store.used.begin(), store.used.end(),
                               [&](const Block& b) { return b.data == data; });
  const Block b = *at;
  store.used.erase(at);
  if (b.size > kMaxFree) return release(b);
  store.free.push_back(b);
  store.free_bytes += b.size;
  mark_reclaimable();
  while (store.free_bytes > kMaxFree) {
    store.free_bytes -= store.free.front().size;
    release(store.free.front());
    store.free.erase(store.free.begin());
  }
}

}  // namespace logitlab
