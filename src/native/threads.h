// Threads that share the tasks of one call.
#pragma once

#include <cstdint>

namespace logitlab {

constexpr int kMaxThreads = 256;

// A task computes about so many entries at most, so that signals are answered soon.
constexpr int64_t kTaskEntries = 1 << 19;

int get_num_threads();
void set_num_threads(int n);

// Sets what check_signals() calls; it may throw.
void set_signal_handlers(void (*run)());

// Lets signal handlers run, at most every 100 ms. Called between tasks, and in tasks of many steps.
void check_signals();

// Signal handlers do not run in this thread as long as it exists.
class SignalsDeferred {
 public:
  SignalsDeferred();
  ~SignalsDeferred();
  SignalsDeferred(const SignalsDeferred&) = delete;

 private:
  const bool before_;
};

// The number of threads for a call on so many entries: one where a single thread takes about as
// long as waking the others, unless there was another call just before.
int threads_for(int64_t entries);

// Calls task(context, i) for every i in [0, tasks), on up to `threads` threads, the caller's among
// them. While another call uses the threads, the caller works alone; after a fork, new threads are
// started. In tasks the floating-point mode is the default one, without flush-to-zero. Throws what
// a task or a signal handler throws; the tasks that have not started then are skipped.
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

// The step of several ranges per thread, at most `most`.
static inline int64_t even_step(int64_t count, int threads, int64_t most) {
  const int64_t step = threads > 1 ? count / (threads * 4) : count;
  return step < 1 ? 1 : step < most ? step : most;
}

}  // namespace logitlab
