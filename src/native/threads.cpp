#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace logitlab {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(80);
constexpr int64_t kBrief = 1 << 17;  // entries

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// The kernels' own floating-point mode: subnormal numbers are numbers, whatever the caller set.
class Mode {
#if defined(__x86_64__)
 public:
  Mode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~Mode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  Mode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(uint64_t(0)));
  }
  ~Mode() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// What the process may use: its affinity, its cgroup's quota (version 2) and OMP_NUM_THREADS.
int usable_threads() {
  int n = int(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double most, period;
  if (quota >> most >> period && period > 0) n = std::min(n, std::max(1, int(most / period + 0.5)));
#endif
  if (const char* wish = std::getenv("OMP_NUM_THREADS")) {
    const int given = std::atoi(wish);
    if (given > 0) n = std::min(n, given);
  }
  return std::clamp(n, 1, kMaxThreads);
}

// Where a thread may run beside its caller. The system likes to wake a thread on the processor of
// whoever woke it, where the two take turns while another processor idles.
#if defined(__linux__)
class Places {
 public:
  using Thread = pthread_t;
  static Thread self() { return pthread_self(); }

  // To be called by the caller, `asleep` where some of its threads are.
  void begin(bool asleep) {
    caller_ = sched_getcpu();
    if (asleep && sched_getaffinity(0, sizeof others_, &others_) == 0 && caller_ >= 0)
      CPU_CLR(caller_, &others_);
  }
  void move(Thread thread) const {
    if (CPU_COUNT(&others_)) pthread_setaffinity_np(thread, sizeof others_, &others_);
  }
  // To be called by a thread that works for the caller.
  void leave_caller() {
    if (sched_getcpu() != caller_) return;
    cpu_set_t others;
    if (sched_getaffinity(getpid(), sizeof others, &others)) return;
    CPU_CLR(caller_, &others);
    if (CPU_COUNT(&others)) sched_setaffinity(0, sizeof others, &others);
  }

 private:
  int caller_ = -1;
  cpu_set_t others_ = {};
};
#else
class Places {
 public:
  using Thread = int;
  static Thread self() { return 0; }
  void begin(bool) {}
  void move(Thread) const {}
  void leave_caller() {}
};
#endif

class Pool {
 public:
  std::mutex in_use;  // held by the call whose tasks are being worked on

  // Whether threads sleep, and nobody has asked for as long as they would have stayed awake.
  bool resting() {
    const Clock::rep now = Clock::now().time_since_epoch().count();
    const Clock::rep before = asked_.exchange(now, std::memory_order_relaxed);
    return sleeping_.load(std::memory_order_relaxed) > 0 && Clock::duration(now - before) > kSpin;
  }

  void run(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context) {
    for (; started_ < threads - 1; ++started_) std::thread([this] { work(); }).detach();
    const bool asleep = sleeping_.load(std::memory_order_relaxed) > 0;
    {
      const std::lock_guard lock(mutex_);
      task_ = task, context_ = context, shares_ = threads;
      for (int i = 0; i < threads; ++i) {
        share_[i].next.store(tasks * i / threads, std::memory_order_relaxed);
        share_[i].end = tasks * (i + 1) / threads;
      }
      wanted_ = threads - 1;
      places_.begin(asleep);
      for (size_t i = 0; asleep && i < std::min<size_t>(wanted_, workers_.size()); ++i)
        places_.move(workers_[i]);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    drain(0);
    {
      const std::lock_guard lock(mutex_);
      wanted_ = 0;  // whoever has not come yet need not
    }
    while (inside_.load(std::memory_order_acquire)) pause();
  }

 private:
  // A thread's own share first, the same in every call, as its cache may still hold what lies
  // there; then what is left of the others'.
  void drain(int own) {
    for (int i = 0; i < shares_; ++i) {
      Share& share = share_[(own + i) % shares_];
      for (int64_t at; (at = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        task_(context_, at);
    }
  }

  void work() {
    const Mode mode;
    uint64_t seen = 0;
    bool wanted = false;
    int own;
    {
      const std::lock_guard lock(mutex_);
      workers_.push_back(Places::self());
      own = int(workers_.size());
    }
    for (;;) {
      const auto until = Clock::now() + kSpin;
      while (generation_.load(std::memory_order_acquire) == seen && Clock::now() < until) pause();
      {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1, std::memory_order_relaxed);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        sleeping_.fetch_sub(1, std::memory_order_relaxed);
        seen = generation_.load(std::memory_order_relaxed);
        wanted = wanted_ > 0;
        if (wanted) {
          --wanted_;
          inside_.fetch_add(1, std::memory_order_relaxed);
        }
        places_.leave_caller();
      }
      if (!wanted) continue;
      drain(own);
      inside_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  Share share_[kMaxThreads];
  int shares_ = 0;
  std::atomic<int> inside_{0};
  std::atomic<Clock::rep> asked_{0};
  std::atomic<int> sleeping_{0};
  std::vector<Places::Thread> workers_;
  Places places_;
  int started_ = 0, wanted_ = 0;
  void (*task_)(const void*, int64_t) = nullptr;
  const void* context_ = nullptr;
};

// Never destroyed: its threads live as long as the process. A forked child has none of them and
// begins anew.
Pool* pool = new Pool;
const int registered = [] {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif
  return 0;
}();

std::atomic<int> allowed{usable_threads()};

}  // namespace

int threads_worth(int64_t entries) {
  const int all = get_num_threads();
  return all > 1 && entries < kBrief && pool->resting() ? 1 : all;
}

int get_num_threads() { return allowed.load(std::memory_order_relaxed); }
void set_num_threads(int n) { allowed.store(std::clamp(n, 1, kMaxThreads)); }

void parallel(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context) {
  const Mode mode;
  threads = int(std::min<int64_t>(threads, tasks));
  if (threads > 1) {
    Pool* p = pool;
    if (std::unique_lock lock(p->in_use, std::try_to_lock); lock) {
      p->run(tasks, threads, task, context);
      return;
    }
  }
  for (int64_t i = 0; i < tasks; ++i) task(context, i);
}

}  // namespace logitlab
