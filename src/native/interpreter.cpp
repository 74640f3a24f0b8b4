#include "interpreter.h"

#include <atomic>
#include <chrono>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "threads.h"

namespace logitlab {
namespace {

namespace nb = nanobind;

unsigned long main_thread;
// The interpreter ends a thread that takes its lock after its end, by unwinding the stack, which
// destructors do not survive. So daemon threads in a kernel never take it then.
std::atomic<bool> ending{false};
std::atomic<int> taking_lock{0};  // threads

// Called without the lock by every thread that runs tasks; only the main thread handles signals.
// Throws where a handler raises an exception, such as KeyboardInterrupt; `out` then has the results
// of some rows.
void run_signal_handlers() {
  if (PyThread_get_thread_ident() != main_thread) return;
  const nb::gil_scoped_acquire lock;
  if (PyErr_CheckSignals()) throw nb::python_error();
}

// Called with the lock, when the interpreter begins to end.
void end() {
  ending = true;
  PyThreadState* const state = PyEval_SaveThread();
  while (taking_lock) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  PyEval_RestoreThread(state);
}

}  // namespace

LockRelease::LockRelease() {
  if (!ending) state_ = PyEval_SaveThread();
}

LockRelease::~LockRelease() {
  if (!state_) return;
  ++taking_lock;
  if (ending) {
    --taking_lock;
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  PyEval_RestoreThread(state_);
  --taking_lock;
}

void watch_interpreter() {
  main_thread = nb::cast<unsigned long>(
      nb::module_::import_("threading").attr("main_thread")().attr("ident"));
  set_signal_handlers(run_signal_handlers);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(end));
#if defined(__unix__) || defined(__APPLE__)
  // A forked child has one thread.
  pthread_atfork(nullptr, nullptr, [] {
    taking_lock = 0;
    main_thread = PyThread_get_thread_ident();
  });
#endif
}

}  // namespace logitlab
