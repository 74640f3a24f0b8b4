#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

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
// How long an idle thread waits actively for the next call.
constexpr auto kSpin = std::chrono::microseconds(80);
// Entries whose computation takes about as long as waking a thread.
constexpr int64_t kShortCall = 1 << 17;
// How often a call lets signal handlers run.
constexpr auto kSignalInterval = std::chrono::milliseconds(100);

void (*run_signal_handlers)() = nullptr;
// In a signal handler that interrupts tasks of this thread.
thread_local bool in_signal_handler = false;
thread_local bool signals_deferred = false;
// Whether the call that this thread works for has failed; null outside of a call on many threads.
thread_local const std::atomic<bool>* call_failed = nullptr;
// Ends a task of a call that has failed.
struct Stopped {};

// Sets a variable as long as it exists.
template <class T>
class Setting {
 public:
  Setting(T& variable, T value) : variable_(variable), before_(variable) { variable = value; }
  ~Setting() { variable_ = before_; }
  Setting(const Setting&) = delete;

 private:
  T& variable_;
  const T before_;
};

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// The floating-point mode of the kernels: the default one, without flush-to-zero. Restores the mode
// of the caller.
class FloatingPointMode {
#if defined(__x86_64__)
 public:
  FloatingPointMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatingPointMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  FloatingPointMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(uint64_t(0)));
  }
  ~FloatingPointMode() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// The processors that the process may use, by its affinity, its cgroup's quota (version 2) and
// OMP_NUM_THREADS.
int usable_threads() {
  int n = int(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double allowed, period;
  if (quota >> allowed >> period && period > 0)
    n = std::min(n, std::max(1, int(allowed / period + 0.5)));
#endif
  if (const char* value = std::getenv("OMP_NUM_THREADS")) {
    const int given = std::atoi(value);
    if (given > 0) n = std::min(n, given);
  }
  return std::clamp(n, 1, kMaxThreads);
}

// Keeps threads off the caller's processor. The system tends to wake a thread on the processor of
// the thread that woke it, where the two alternate while another processor idles.
#if defined(__linux__)
class Placement {
 public:
  using Thread = pthread_t;
  static Thread self() { return pthread_self(); }

  // Called by the caller; `asleep` where some threads sleep.
  void begin(bool asleep) {
    caller_ = sched_getcpu();
    if (asleep && sched_getaffinity(0, sizeof others_, &others_) == 0 && caller_ >= 0)
      CPU_CLR(caller_, &others_);
  }
  void move(Thread thread) const {
    if (CPU_COUNT(&others_)) pthread_setaffinity_np(thread, sizeof others_, &others_);
  }
  // Called by a thread that works for the caller.
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
class Placement {
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
  std::mutex in_use;  // held by the call that uses the threads

  // Whether threads sleep, and the last call was longer ago than they wait actively.
  bool idle() {
    const Clock::rep now = Clock::now().time_since_epoch().count();
    const Clock::rep before = last_call_.exchange(now, std::memory_order_relaxed);
    return sleeping_.load(std::memory_order_relaxed) > 0 && Clock::duration(now - before) > kSpin;
  }

  void run(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context) {
    threads = 1 + start(threads - 1);
    failed_ = false;
    const bool asleep = sleeping_.load(std::memory_order_relaxed) > 0;
    {
      const std::lock_guard lock(mutex_);
      task_ = task, context_ = context, shares_ = threads;
      for (int i = 0; i < threads; ++i) {
        share_[i].next.store(tasks * i / threads, std::memory_order_relaxed);
        share_[i].end = tasks * (i + 1) / threads;
      }
      needed_ = threads - 1;
      placement_.begin(asleep);
      for (int i = 0; asleep && i < std::min(needed_, workers_size_); ++i)
        placement_.move(workers_[i]);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work_on_shares(0);
    {
      const std::lock_guard lock(mutex_);
      needed_ = 0;  // threads that have not started yet are not needed
    }
    while (working_.load(std::memory_order_acquire)) pause();
    if (failed_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  // Starts threads until there are `wanted`, or as many as the system allows; returns how many of
  // the wanted ones there are.
  int start(int wanted) {
    try {
      for (; started_ < wanted; ++started_) std::thread([this] { thread_loop(); }).detach();
    } catch (const std::exception&) {
    }
    return std::min(wanted, started_);
  }

  // A thread's own share first, which is the same in every call, as its cache may still have the
  // data; then what is left of the other shares. After an exception, the tasks that are left are
  // skipped.
  void work_on_shares(int own) noexcept {
    const Setting setting(call_failed, static_cast<const std::atomic<bool>*>(&failed_));
    try {
      for (int i = 0; i < shares_; ++i) {
        Share& share = share_[(own + i) % shares_];
        for (int64_t at; (at = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
          check_signals();
          task_(context_, at);
        }
      }
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  void thread_loop() {
    const FloatingPointMode mode;
    uint64_t seen = 0;
    bool needed = false;
    int own;
    {
      const std::lock_guard lock(mutex_);
      workers_[workers_size_] = Placement::self();
      own = ++workers_size_;
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
        needed = needed_ > 0;
        if (needed) {
          --needed_;
          working_.fetch_add(1, std::memory_order_relaxed);
        }
        placement_.leave_caller();
      }
      if (!needed) continue;
      work_on_shares(own);
      working_.fetch_sub(1, std::memory_order_release);
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
  std::atomic<int> working_{0};
  std::atomic<Clock::rep> last_call_{0};
  std::atomic<int> sleeping_{0};
  Placement::Thread workers_[kMaxThreads];
  int workers_size_ = 0;
  Placement placement_;
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // the first one
  int started_ = 0, needed_ = 0;
  void (*task_)(const void*, int64_t) = nullptr;
  const void* context_ = nullptr;
};

// Never destroyed, as its threads live as long as the process. A forked child has none of them and
// starts with a new pool.
Pool* pool = new Pool;
const int registered = [] {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif
  return 0;
}();

std::atomic<int> thread_limit{usable_threads()};

}  // namespace

int threads_for(int64_t entries) {
  const int all = get_num_threads();
  return all > 1 && entries < kShortCall && pool->idle() ? 1 : all;
}

int get_num_threads() { return thread_limit.load(std::memory_order_relaxed); }
void set_num_threads(int n) { thread_limit.store(std::clamp(n, 1, kMaxThreads)); }

void set_signal_handlers(void (*run)()) { run_signal_handlers = run; }

SignalsDeferred::SignalsDeferred() : before_(std::exchange(signals_deferred, true)) {}
SignalsDeferred::~SignalsDeferred() { signals_deferred = before_; }

void check_signals() {
  if (call_failed && call_failed->load(std::memory_order_relaxed)) throw Stopped();
  thread_local Clock::time_point next;
  const Clock::time_point now = Clock::now();
  if (now < next || !run_signal_handlers || signals_deferred) return;
  next = now + kSignalInterval;
  const Setting setting(in_signal_handler, true);
  run_signal_handlers();
}

void parallel(int64_t tasks, int threads, void (*task)(const void*, int64_t), const void* context) {
  if (in_signal_handler) {
    // The interrupted task uses the memory that this thread keeps.
    std::exception_ptr error;
    std::thread([&] {
      try {
        parallel(tasks, threads, task, context);
      } catch (...) {
        error = std::current_exception();
      }
    }).join();
    if (error) std::rethrow_exception(error);
    return;
  }
  const FloatingPointMode mode;
  threads = int(std::min<int64_t>(threads, tasks));
  if (threads > 1) {
    Pool* p = pool;
    if (std::unique_lock lock(p->in_use, std::try_to_lock); lock) {
      p->run(tasks, threads, task, context);
      return;
    }
  }
  for (int64_t i = 0; i < tasks; ++i) {
    if (i) check_signals();
    task(context, i);
  }
}

}  // namespace logitlab
