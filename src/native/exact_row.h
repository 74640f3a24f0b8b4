// Softmax, log_softmax and logsumexp of one row at any temperature >= 0 (infinity included), with
// special values: scalar, in double. The vector kernels call it for rows outside of their range.
#pragma once

#include <cstdint>

namespace logitlab {

// `loss` is the cross-entropy of a label, `loss_and_gradient` that and its derivative by the
// logits.
enum class Op { softmax, log_softmax, logsumexp, loss, loss_and_gradient };

// z and out are contiguous; `out` may be `z`. logsumexp writes one element. Not for the losses.
void exact_row(Op op, const float* z, float* out, int64_t k, double t);
void exact_row(Op op, const double* z, double* out, int64_t k, double t);

// exp((z - m)/t) of z <= m, m finite, t finite and above 0; 0 of -inf.
void exact_weights(const float* z, int64_t k, float m, double t, double* e);
void exact_weights(const double* z, int64_t k, double m, double t, double* e);

}  // namespace logitlab
