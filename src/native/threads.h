// Threads that share the tasks of one call.
#pragma once

#include <cstdint>

namespace logitlab {

constexpr int kMaxThreads = 256;

int get_num_threads();
void set_num_threads(int n);

// The number of threads for a call on so many entries: one where a single thread takes about as
// long as waking the others, unless there was another call just before.
int threads_for(int64_t entries);

// Calls task(context, i) for every i in [0, tasks), on up to `threads` threads, the caller's among
// them. While another call uses the threads, the caller works alone; after a fork, new threads are
// started. In tasks the floating-point mode is the default one, without flush-to-zero.
void parallel(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context);

// Calls use(first, last) for the ranges of `step` items that make up [0, count).
template <class Use>
void parallel_ranges(int64_t count, int64_t step, int threads, const Use& use) {
  struct Ranges {
    const Use& use;
    int64_t count, step;
  };
  const Ranges ranges{use, count, step};
  parallel((count + step - 1) / step, threads,
           [](const void* context, int64_t task) {
             const Ranges& r = *static_cast<const Ranges*>(context);
             const int64_t first = task * r.step, last = first + r.step;
             r.use(first, last < r.count ? last : r.count);
           },
           &ranges);
}

// The same with several ranges per thread.
template <class Use>
void parallel_ranges(int64_t count, int threads, const Use& use) {
  const int64_t step = threads > 1 ? count / (threads * 4) : count;
  parallel_ranges(count, step > 1 ? step : 1, threads, use);
}

}  // namespace logitlab
