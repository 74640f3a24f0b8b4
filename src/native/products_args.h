// What a product with a derivative of softmax asks for.
#pragma once

#include "batch.h"

namespace logitlab {

// The products of a vector with the derivatives of two functions, and the first of these itself.
enum class Product : int { softmax, log_softmax, jacobian };

// So many columns side by side are worked on where they lie.
constexpr int64_t kLeastColumns = 16;

// Contiguous arrays of float or double, of shape (rows, k, inner), inner 1 or at least
// kLeastColumns. Where it is 1 out may be p or v; of a Jacobian it has a matrix a row.
struct ProductArgs {
  Product product;
  Kind kind;
  const void *p, *v, *z;  // z may be null; where p is, it is the softmax of z, and inner is 1
  double temperature;     // of that
  void* out;
  const double* slope;  // 1/T, of shape (rows, inner)
  int64_t rows, k, inner;
  int threads;
};
using ProductRun = void (*)(const ProductArgs&);

namespace v2 {
extern const ProductRun products;
}
namespace v3 {
extern const ProductRun products;
}
namespace v4 {
extern const ProductRun products;
}
namespace neon {
extern const ProductRun products;
}

}  // namespace logitlab
