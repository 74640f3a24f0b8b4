// The arguments of a product with a derivative of softmax.
#pragma once

#include "batch.h"

namespace logitlab {

// A vector times the derivative of softmax or log_softmax, or the derivative of softmax itself.
enum class Product : int { softmax, log_softmax, jacobian };

// Arrays of at least so many adjacent columns are computed without a transpose.
constexpr int64_t kMinColumns = 16;

// Contiguous arrays of float or double, of shape (rows, k, inner), where inner is 1 or at least
// kMinColumns. Where it is 1, out may be p or v. The Jacobian has a k x k matrix per row.
struct ProductArgs {
  Product product;
  Kind kind;
  const void *p, *v, *z;  // z may be null; where p is null, it is computed from z, and inner is 1
  double temperature;     // of p, where it is computed
  void* out;
  const double* slope;  // 1/T, of shape (rows, inner)
  int64_t rows, k, inner;
  int threads;
};
using ProductFunction = void (*)(const ProductArgs&);

namespace v2 {
extern const ProductFunction products;
}
namespace v3 {
extern const ProductFunction products;
}
namespace v4 {
extern const ProductFunction products;
}
namespace neon {
extern const ProductFunction products;
}

}  // namespace logitlab
