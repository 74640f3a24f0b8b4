// The Python module.
#define LOGITLAB_IMPORTS_NUMPY
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdlib>
#include <string>

#include "interpreter.h"
#include "memory.h"
#include "numpy_api.h"
#include "py_buffer.h"
#include "threads.h"

namespace logitlab {
namespace {

// The kernels of the best instruction set of this processor, or of a lower one that LOGITLAB_ISA
// names.
Kernels choose_kernels() {
#if defined(LOGITLAB_X86_VARIANTS)
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2");
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* variable = std::getenv("LOGITLAB_ISA");
  const std::string highest = variable ? variable : "v4";
  if (has_v4 && highest != "v3" && highest != "v2")
    return {"v4",       v4::run,    v4::moments,         v4::products,
            v4::sample, v4::scores, v4::second_products, v4::shards};
  if (has_v3 && highest != "v2")
    return {"v3",       v3::run,    v3::moments,         v3::products,
            v3::sample, v3::scores, v3::second_products, v3::shards};
  return {"v2",       v2::run,    v2::moments,         v2::products,
          v2::sample, v2::scores, v2::second_products, v2::shards};
#elif defined(__aarch64__)
  return {"neon",       neon::run,    neon::moments,         neon::products,
          neon::sample, neon::scores, neon::second_products, neon::shards};
#else
  return {"generic",  v2::run,    v2::moments,         v2::products,
          v2::sample, v2::scores, v2::second_products, v2::shards};
#endif
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = choose_kernels();

}  // namespace logitlab

NB_MODULE(_native, m) {
  using namespace logitlab;
  if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
  watch_interpreter();
  m.attr("isa") = kernels.name;
  m.attr("MAX_THREADS") = kMaxThreads;
  m.attr("LARGE_RESULT") = kLargeResult;
  m.def("get_num_threads", get_num_threads);
  m.def("set_num_threads", set_num_threads, nb::arg("n"));
  m.def(
      "empty",
      [](size_t bytes) {
        void* data = allocate_result(bytes);
        return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(
            data, {bytes}, nb::capsule(data, [](void* p) noexcept { free_result(p); }));
      },
      nb::arg("bytes"), nb::sig("def empty(bytes: int) -> numpy.typing.NDArray[numpy.uint8]"));
  define_rows(m);
  define_products(m);
  define_sampling(m);
  define_penalties(m);
  define_descent(m);
  define_shards(m);
  define_xla(m);
}
