#include "memory.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace logitlab {
namespace {

constexpr size_t kPage = size_t(1) << 21;    // a large one
constexpr size_t kKept = size_t(1) << 29;    // bytes at most, while nobody uses them
constexpr size_t kWarm = size_t(160) << 20;  // of these the bytes that the system cannot have back

struct Block {
  char* data;
  size_t size;
  bool warm = true;
};

struct Store {
  std::mutex mutex;
  std::vector<Block> used, free;  // free: the oldest first
  size_t kept = 0;
};
Store& store = *new Store;  // results may outlive every static object

Block allocate(size_t size) {
  char* data = static_cast<char*>(::operator new(size, std::align_val_t(kPage)));
#if defined(__linux__)
  madvise(data, size, MADV_HUGEPAGE);
#endif
  return {data, size};
}

void release(Block b) { ::operator delete(b.data, std::align_val_t(kPage)); }

// Lets the system take back, whenever it is short, all but what was in use last: to mark a page so
// costs as much as to write it.
void cool() {
  size_t warm = 0;
  for (auto b = store.free.rbegin(); b != store.free.rend(); ++b) {
    warm += b->size;
    if (warm <= kWarm || !b->warm) continue;
#if defined(__linux__) && defined(MADV_FREE)
    madvise(b->data, b->size, MADV_FREE);
#endif
    b->warm = false;
  }
}

}  // namespace

void* take(size_t bytes) {
  const size_t size = (bytes + kPage - 1) / kPage * kPage;
  const std::lock_guard lock(store.mutex);
  auto fits = [&](const Block& b) { return b.size >= size && b.size <= size + size / 4; };
  const auto found = std::find_if(store.free.rbegin(), store.free.rend(), fits);
  if (found != store.free.rend()) {
    Block b = *found;
    b.warm = true;
    store.free.erase(std::next(found).base());
    store.kept -= b.size;
    store.used.push_back(b);
    return b.data;
  }
  store.used.push_back(allocate(size));
  return store.used.back().data;
}

void give_back(void* data) {
  const std::lock_guard lock(store.mutex);
  const auto at = std::find_if(store.used.begin(), store.used.end(),
                               [&](const Block& b) { return b.data == data; });
  const Block b = *at;
  store.used.erase(at);
  if (b.size > kKept) return release(b);
  store.free.push_back(b);
  store.kept += b.size;
  cool();
  while (store.kept > kKept) {
    store.kept -= store.free.front().size;
    release(store.free.front());
    store.free.erase(store.free.begin());
  }
}

}  // namespace logitlab
