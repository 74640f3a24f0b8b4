// One row of any magnitude, at any temperature >= 0 (infinity included), special values and all.
// It is what the fast kernels turn to where their range ends: scalar, in double.
#pragma once

#include <cstdint>

namespace logitlab {

// `loss` is the cross-entropy of a label, `loss_and_gradient` that and its derivative by the logits.
enum class Op { softmax, log_softmax, logsumexp, loss, loss_and_gradient };

// Contiguous; `out` may be `z`. logsumexp writes one element. The losses are made of the others.
void exact_row(Op op, const float* z, float* out, int64_t k, double t);
void exact_row(Op op, const double* z, double* out, int64_t k, double t);

}  // namespace logitlab
