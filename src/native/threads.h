// Threads that share the tasks of one call.
#pragma once

#include <algorithm>
#include <cstdint>

namespace logitlab {

constexpr int kMaxThreads = 256;

int get_num_threads();
void set_num_threads(int n);

// How many threads a call on so many entries is worth: one where it would be over about as soon as
// threads that sleep have woken, unless another call was made just before.
int threads_worth(int64_t entries);

// task(context, i) for every i in [0, tasks), on up to `threads` threads, the caller's among them.
// Where another call has the threads, the caller works alone; after a fork, new ones are started.
// Tasks run in the default floating-point mode: subnormal numbers are numbers.
void parallel(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context);

// use(first, last) of parts of [0, count), several a thread.
template <class Use>
void share_out(int64_t count, int threads, const Use& use) {
  struct Share {
    const Use& use;
    int64_t count, step;
  };
  const int64_t step = std::max<int64_t>(1, threads > 1 ? count / (threads * 4) : count);
  const Share share{use, count, step};
  parallel((count + step - 1) / step, threads,
           [](const void* context, int64_t task) {
             const Share& s = *static_cast<const Share*>(context);
             s.use(task * s.step, std::min(s.count, (task + 1) * s.step));
           },
           &share);
}

}  // namespace logitlab
