// Threads that share the tasks of one call.
#pragma once

#include <cstdint>

namespace logitlab {

constexpr int kMaxThreads = 256;

int get_num_threads();
void set_num_threads(int n);

// task(context, i) for every i in [0, tasks), on up to `threads` threads, the caller's among them.
// Where another call has the threads, the caller works alone; after a fork, new ones are started.
// Tasks run in the default floating-point mode: subnormal numbers are numbers.
void parallel(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context);

}  // namespace logitlab
