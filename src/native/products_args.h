// What a product with a derivative of softmax asks for.
#pragma once

#include <vector>

#include "batch.h"

namespace logitlab {

// The products of a vector with the derivatives of two functions, and the first of these itself.
enum class Product : int { softmax, log_softmax, jacobian };

// Contiguous rows of float or double; out may be p or v, and of a Jacobian it is a matrix a row.
struct ProductArgs {
  Product product;
  Kind kind;
  const void *p, *v, *z;  // z may be null
  void* out;
  const double* slope;  // 1/T of each row
  int64_t rows, k;
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
