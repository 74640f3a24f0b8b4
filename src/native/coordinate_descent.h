// Coordinate descent on a quadratic function with a penalty, compiled once for all instruction
// sets.
#pragma once

#include <cstdint>

namespace logitlab {

// The function x' H x / 2 + b' x + l1 (|x_1| + ... + |x_groups|), with x_g the g-th `group_size`
// coordinates and |.| their Euclidean norm. The coordinates after the groups are not penalized.
struct QuadraticModel {
  const double* hessian;  // (size, size), symmetric
  int64_t size, groups, group_size;
  double l1;
  // The eigenvalues of the diagonal blocks of the groups, (groups, group_size), and with more than
  // one coordinate in a group their eigenvectors, (groups, group_size, group_size), in columns.
  const double *values, *vectors;
};

// Minimizes over each group in turn until no change d of a group in a sweep over all of them has
// d' H d > tol, or for max_sweeps sweeps. x and its gradient H x + b are changed. Returns the
// largest d' H d of the last sweep over all groups.
double coordinate_descent(const QuadraticModel& model, double* x, double* gradient, double tol,
                          int64_t max_sweeps);

// The function b' d + d' B d / 2 + l2 |x|^2 / 2 + l1 (sum of |x_ij|) of x = x0 + d of shape
// (rows, columns), with B = diag(a) (x) C + U diag(s) U'. If `grouped`, |.| is the norm of a
// column. C is square, or diagonal, of the first `features` columns; there is one more column where
// x has an intercept, which is not penalized, and with 1 on the diagonal of C.
struct StructuredModel {
  int64_t rows, features, rank;
  bool has_intercept, is_diagonal, grouped;
  const double *a, *c;            // (rows,), and (features, features) or (features,)
  const double *factors, *signs;  // U (rows, columns, rank), s (rank,)
  double l1, l2;
};

// Minimizes as above, from x0 and its gradient b, over each entry in turn or, if `grouped`, a bound
// of the function over each column. tol is relative to the largest change in the first sweep.
double structured_descent(const StructuredModel& model, double* x, const double* gradient,
                          double tol, int64_t max_sweeps);

}  // namespace logitlab
