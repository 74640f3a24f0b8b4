// Estimates of the mass of the entries of a row that are near a value, from a sample.
#pragma once

#include "row_weights.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

// Distances between which the nearest entries reach a share of the mass in nearly all rows.
struct DistanceRange {
  double near = 0, far = kInfinity<double>;
};

// Entries at even distances. Those of large weight are few, and have most of the variance: they are
// all taken. Each of the others stands for several of the row.
template <class T>
class MassSample {
 public:
  // False where there are too few entries above -inf.
  template <class Weights>
  bool take(const Weights& weights_of, const T* z, int64_t k) {
    T sample[kSample];
    copy_sample(z, k, sample);
    const T m = largest(sample, kSample);
    if (!(m > -kInfinity<T>)) return false;
    Buffer<T>& values = entries_.values;
    const T large = nth_largest_of(sample, kSample, kLargeInSample, m, values);
    if (large == -kInfinity<T>) return false;
    collect_between(z, k, next_after(large, kInfinity<T>), kInfinity<T>, values);
    n_large_ = values.size();
    values.resize(n_large_ + kSample);
    int64_t n = n_large_;
    for (T x : sample) values[n] = x, n += x <= large;
    values.resize(n);
    entries_.weigh(weights_of);
    const double scale = double(k - n_large_) / double(n - n_large_);
    for (int64_t i = n_large_; i < n; ++i) entries_.weights[i] *= scale;
    size_ = n;
    return true;
  }

  // The mean of the entries under the softmax, where those below `lowest` count as it, and its
  // largest likely error.
  LOGITLAB_FLATTEN double mean(T lowest, double& error) const {
    const double total = entries_.mass();
    // The sum of a function of each weight and entry, from entry number `first` on.
    const auto sum_from = [&](int64_t first, auto term) {
      Vec<double> sum(0.0);
      for (int64_t i = first; i < entries_.values.size(); i += kLanes) {
        const Vec<double> x = load_double(entries_.values.data() + i);
        sum = add(sum, term(Vec<double>(entries_.weights.data() + i),
                            larger(x, Vec<double>(double(lowest)))));
      }
      return sum_of_lanes(sum);
    };
    const double mean =
        sum_from(0, [](const Vec<double>& w, const Vec<double>& x) { return mul(w, x); }) / total;
    // Whole vectors: up to fifteen of the sample are left out of the estimate.
    const int64_t first = (n_large_ + kLanes - 1) / kLanes * kLanes;
    const double variance = sum_from(first, [&](const Vec<double>& w, const Vec<double>& x) {
      const Vec<double> part = mul(w, sub(x, Vec<double>(mean)));
      return mul(part, part);
    });
    error = kDeviations * std::sqrt(variance) / total;
    return mean;
  }

  // Of the entries nearest to `centre` that have a share p of the mass; none of these is farther
  // than `farthest`.
  DistanceRange range(double centre, double farthest, double p) const {
    // The mass at each distance, and the part of the variance.
    double mass[kBins + 1] = {}, square[kBins + 1] = {};
    if (!(farthest < kLargest<T>)) return {};
    const double bins = kBins / farthest, bin = farthest / kBins;
    const auto bin_of = [&](int64_t i) {
      return int(min(absolute(double(entries_.values[i]) - centre) * bins, double(kBins)));
    };
    for (int64_t i = 0; i < n_large_; ++i) mass[bin_of(i)] += entries_.weights[i];
    for (int64_t i = n_large_; i < size_; ++i) {
      const int at = bin_of(i);
      const double w = entries_.weights[i];
      mass[at] += w, square[at] += w * w;
    }
    double total = 0, nearer = 0, variance = 0;
    for (double x : mass) total += x;
    for (int i = 0; i <= kBins; ++i) {
      const double share = nearer < p * total ? 1 - p : p;
      nearer += mass[i];
      variance += square[i] * share * share;
    }
    const double margin = kDeviations * std::sqrt(variance);
    DistanceRange found;
    nearer = 0;
    for (int i = 0; i < kBins; ++i) {
      nearer += mass[i];
      if (nearer < p * total - margin) found.near = bin * (i + 1);
      if (nearer >= p * total + margin) {
        found.far = bin * (i + 1);
        break;
      }
    }
    return found;
  }

  void release() { entries_.release(); }

 private:
  static constexpr int64_t kLargeInSample = 64;  // of the sample, the entries that are all taken
  static constexpr int kBins = 256;
  static constexpr double kDeviations = 4;

  WeightedEntries<T> entries_;  // those of large weight first
  int64_t n_large_ = 0, size_ = 0;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
