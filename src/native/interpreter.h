// The interpreter while kernels run: its lock, its signals and its end.
#pragma once

#include <nanobind/nanobind.h>

namespace logitlab {

// Releases the lock of the interpreter as long as it exists.
class LockRelease {
 public:
  LockRelease();
  ~LockRelease();
  LockRelease(const LockRelease&) = delete;

 private:
  PyThreadState* state_ = nullptr;
};

// Called when the module is imported.
void watch_interpreter();

}  // namespace logitlab
