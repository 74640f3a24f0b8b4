// Coordinate descent on a quadratic function with a penalty.
#include "coordinate_descent.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace logitlab {
namespace {

// The root r of sum_i (v_i / (e_i r + l1))^2 = 1, by Newton steps on the inverse root of the left
// side, which is almost linear in r.
double norm_of_minimizer(const double* v, const double* e, int64_t n, double l1) {
  double r = 0;
  for (int step = 0; step < 100; ++step) {
    double sum = 0, slope = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double scale = e[i] * r + l1, term = v[i] / scale;
      sum += term * term;
      slope += term * term * e[i] / scale;
    }
    const double excess = std::sqrt(sum) - 1;
    if (!(slope > 0)) break;
    r += sum * excess / slope;
    if (std::abs(excess) < 1e-15) break;
  }
  return r;
}

// Sweeps over all coordinates, and between them over those that are not 0, until no change is
// larger than tol, or than `reduction` times the largest one in the first sweep. Returns the
// largest change in the last sweep over all.
template <class Descent>
double run_sweeps(Descent& descent, double tol, double reduction, int64_t max_sweeps) {
  double largest = 0;
  for (int64_t sweeps = 0; sweeps < max_sweeps;) {
    largest = descent.sweep(true);
    if (sweeps++ == 0) tol = std::max(tol, reduction * largest);
    if (largest <= tol) break;
    while (sweeps < max_sweeps && descent.sweep(false) > tol) ++sweeps;
  }
  return largest;
}

class Descent {
 public:
  Descent(const QuadraticModel& model, double* x, double* gradient)
      : m_(model),
        x_(x),
        gradient_(gradient),
        rotated_(model.group_size),
        next_(model.group_size) {}

  // A sweep over the groups, all or those that are not 0, and the coordinates after them. Returns
  // the largest d' H d.
  double sweep(bool all) {
    double largest = 0;
    for (int64_t g = 0; g < m_.groups; ++g)
      if (all || !is_zero(g))
        largest = std::max(largest, m_.group_size == 1 ? update_one(g) : update_group(g));
    for (int64_t i = m_.groups * m_.group_size; i < m_.size; ++i) {
      const double curvature = m_.hessian[i * m_.size + i];
      if (curvature > 0) largest = std::max(largest, move(i, -gradient_[i] / curvature, curvature));
    }
    return largest;
  }

 private:
  bool is_zero(int64_t g) const {
    const double* x = x_ + g * m_.group_size;
    return std::all_of(x, x + m_.group_size, [](double value) { return value == 0; });
  }

  // Changes a coordinate by `change`; returns its d' H d.
  double move(int64_t i, double change, double curvature) {
    set(i, x_[i] + change, change);
    return change * change * curvature;
  }
  void set(int64_t i, double value, double change) {
    x_[i] = value;
    const double* row = m_.hessian + i * m_.size;
    if (change != 0)
      for (int64_t j = 0; j < m_.size; ++j) gradient_[j] += change * row[j];
  }

  double update_one(int64_t i) {
    const double curvature = m_.values[i];
    if (!(curvature > 0)) return 0;
    const double v = curvature * x_[i] - gradient_[i], excess = std::abs(v) - m_.l1;
    const double value = excess > 0 ? std::copysign(excess, v) / curvature : 0.0;
    const double change = value - x_[i];
    set(i, value, change);
    return change * change * curvature;
  }

  // In the coordinates of the eigenvectors, the minimizer with norm r is v_i / (e_i + l1 / r),
  // where v is minus the gradient at 0 of the group.
  double update_group(int64_t g) {
    const int64_t n = m_.group_size, first = g * n;
    const double *e = m_.values + first, *u = m_.vectors + first * n;
    if (!(*std::max_element(e, e + n) > 0)) return 0;
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      double x = 0, gradient = 0;
      for (int64_t j = 0; j < n; ++j) {
        x += u[j * n + i] * x_[first + j];
        gradient += u[j * n + i] * gradient_[first + j];
      }
      rotated_[i] = e[i] * x - gradient;
      squares += rotated_[i] * rotated_[i];
    }
    const bool zero = std::sqrt(squares) <= m_.l1;
    const double r = zero ? 0 : norm_of_minimizer(rotated_.data(), e, n, m_.l1);
    for (int64_t j = 0; j < n; ++j) {
      next_[j] = 0;
      for (int64_t i = 0; i < n && !zero; ++i)
        next_[j] += u[j * n + i] * (rotated_[i] * r / (e[i] * r + m_.l1));
    }
    double moved = 0;
    for (int64_t i = 0; i < n; ++i) {
      double change = 0;
      for (int64_t j = 0; j < n; ++j) change += u[j * n + i] * (next_[j] - x_[first + j]);
      moved += e[i] * change * change;
    }
    for (int64_t j = 0; j < n; ++j) set(first + j, next_[j], next_[j] - x_[first + j]);
    return moved;
  }

  const QuadraticModel& m_;
  double *x_, *gradient_;
  std::vector<double> rotated_, next_;
};

class StructuredDescent {
 public:
  StructuredDescent(const StructuredModel& model, double* x, const double* gradient)
      : m_(model),
        columns_(model.features + model.has_intercept),
        x_(x),
        gradient_(gradient),
        images_(model.rows * columns_),
        changes_(model.rank),
        curvatures_(model.rows * columns_),
        v_(model.rows),
        e_(model.rows) {
    for (int64_t i = 0; i < m_.rows; ++i)
      for (int64_t j = 0; j < columns_; ++j) curvatures_[i * columns_ + j] = curvature(i, j);
  }

  double sweep(bool all) {
    double largest = 0;
    for (int64_t j = 0; j < m_.features && m_.grouped; ++j)
      if (all || !is_zero(j)) largest = std::max(largest, update_column(j));
    for (int64_t i = 0; i < m_.rows; ++i) {
      for (int64_t j = 0; j < m_.features && !m_.grouped; ++j)
        if (all || x_[i * columns_ + j] != 0) largest = std::max(largest, update(i, j, m_.l1));
      if (m_.has_intercept) largest = std::max(largest, update(i, m_.features, 0));
    }
    return largest;
  }

 private:
  bool is_zero(int64_t j) const {
    for (int64_t i = 0; i < m_.rows; ++i)
      if (x_[i * columns_ + j] != 0) return false;
    return true;
  }
  const double* factors(int64_t i, int64_t j) const {
    return m_.factors + (i * columns_ + j) * m_.rank;
  }
  double diagonal(int64_t j) const {
    return j == m_.features ? 1 : m_.c[m_.is_diagonal ? j : j * m_.features + j];
  }

  // The second derivative by an entry; of a column, an upper bound of the Hessian that is diagonal.
  double curvature(int64_t i, int64_t j) const {
    const bool bounded = m_.grouped && j < m_.features;
    double sum = m_.a[i] * diagonal(j) + (j < m_.features ? m_.l2 : 0);
    const double* u = factors(i, j);
    for (int64_t r = 0; r < m_.rank; ++r) {
      double size = std::abs(u[r]);
      for (int64_t k = 0; k < m_.rows && bounded; ++k)
        if (k != i) size += std::abs(factors(k, j)[r]);
      if (!bounded || m_.signs[r] > 0) sum += m_.signs[r] * std::abs(u[r]) * size;
    }
    return sum;
  }

  double slope(int64_t i, int64_t j) const {
    const int64_t at = i * columns_ + j;
    double sum = gradient_[at] + m_.a[i] * images_[at];
    if (j < m_.features) sum += m_.l2 * x_[at];
    const double* u = factors(i, j);
    for (int64_t r = 0; r < m_.rank; ++r) sum += u[r] * changes_[r];
    return sum;
  }

  void set(int64_t i, int64_t j, double value) {
    double* image = images_.data() + i * columns_;
    const double change = value - x_[i * columns_ + j];
    x_[i * columns_ + j] = value;
    if (change == 0) return;
    if (j == m_.features || m_.is_diagonal) {
      image[j] += change * diagonal(j);
    } else {
      const double* row = m_.c + j * m_.features;
      for (int64_t k = 0; k < m_.features; ++k) image[k] += change * row[k];
    }
    const double* u = factors(i, j);
    for (int64_t r = 0; r < m_.rank; ++r) changes_[r] += change * m_.signs[r] * u[r];
  }

  double update(int64_t i, int64_t j, double l1) {
    const int64_t at = i * columns_ + j;
    const double e = curvatures_[at];
    if (!(e > 0)) return 0;
    const double v = e * x_[at] - slope(i, j), excess = std::abs(v) - l1, before = x_[at];
    set(i, j, excess > 0 ? std::copysign(excess, v) / e : 0.0);
    return (x_[at] - before) * (x_[at] - before) * e;
  }

  double update_column(int64_t j) {
    if (!(diagonal(j) > 0)) return 0;
    double squares = 0, moved = 0;
    for (int64_t i = 0; i < m_.rows; ++i) {
      e_[i] = curvatures_[i * columns_ + j];
      v_[i] = e_[i] * x_[i * columns_ + j] - slope(i, j);
      squares += v_[i] * v_[i];
    }
    const bool zero = std::sqrt(squares) <= m_.l1;
    const double r = zero ? 0 : norm_of_minimizer(v_.data(), e_.data(), m_.rows, m_.l1);
    for (int64_t i = 0; i < m_.rows; ++i) {
      const double before = x_[i * columns_ + j];
      set(i, j, zero ? 0.0 : v_[i] * r / (e_[i] * r + m_.l1));
      const double change = x_[i * columns_ + j] - before;
      moved = std::max(moved, change * change * e_[i]);
    }
    return moved;
  }

  const StructuredModel& m_;
  const int64_t columns_;
  double* x_;
  const double* gradient_;
  std::vector<double> images_;   // C d of each row
  std::vector<double> changes_;  // s U' d
  std::vector<double> curvatures_, v_, e_;
};

}  // namespace

double coordinate_descent(const QuadraticModel& model, double* x, double* gradient, double tol,
                          int64_t max_sweeps) {
  Descent descent(model, x, gradient);
  return run_sweeps(descent, tol, 0, max_sweeps);
}

double structured_descent(const StructuredModel& model, double* x, const double* gradient,
                          double tol, int64_t max_sweeps) {
  StructuredDescent descent(model, x, gradient);
  return run_sweeps(descent, 0, tol, max_sweeps);
}

}  // namespace logitlab
