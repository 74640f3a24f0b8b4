// A row of logits, and the entries of it that a truncation keeps.
#pragma once

#include "truncate_stages.h"
#include "workspace.h"

namespace logitlab {
namespace LOGITLAB_ISA {
namespace {

template <class T>
class TruncatedRow {
 public:
  // Memory for a copy of the row, where it is not contiguous.
  T* reserve(int64_t k) {
    if (own_.size() < k) own_.resize(k);
    return own_.data();
  }
  // z is not written to; it may be that memory.
  void set(const T* z, int64_t k) {
    z_ = z, k_ = k;
    index_.clear();
  }

  // Applies the stages, and T < 0 as a change of sign; t becomes |T|, or the dynamic temperature.
  // False where there is no distribution.
  bool truncate(const Truncation& truncation, int64_t row, double& t) {
    if (truncation.count == 0 && t < 0) negate();
    double stage_temperature = 1;
    for (int i = 0; i < truncation.count; ++i) {
      const StageArgs& args = truncation.stages[i];
      const double parameter = value_of_row(args.parameter, row);
      if (args.stage == Stage::temperature) {
        if (t < 0) negate();
        t = std::fabs(t);
        if (parameter > 0)
          t = intervals_.dynamic_temperature(z_, k_, t, parameter,
                                             value_of_row(args.exponent, row));
        stage_temperature = t;
      } else if (!keeps_all(args.stage, parameter) &&
                 !apply(args.stage, parameter, stage_temperature)) {
        t = std::fabs(t);
        return false;
      }
    }
    t = std::fabs(t);
    return true;
  }

  const T* z() const { return z_; }
  int64_t size() const { return k_; }
  bool truncated() const { return !index_.empty(); }
  // The class of entry i.
  int64_t class_of(int64_t i) const { return truncated() ? int64_t(index_[i]) : i; }

  // Writes which of `classes` classes are kept.
  LOGITLAB_FLATTEN void write_mask(uint8_t* kept, int64_t classes) const {
    fill<uint8_t>(kept, classes, !truncated());
    if (!truncated()) return;
    for (int64_t i = 0; i < k_; ++i) kept[index_[i]] = 1;
  }

  int64_t capacity() const { return own_.capacity(); }
  void release() {
    own_.release();
    index_.release();
    finder_.release();
    intervals_.release();
  }

 private:
  static bool keeps_all(Stage stage, double parameter) {
    if (stage == Stage::top_p || stage == Stage::typical_p) return parameter == 1;
    if (stage == Stage::top_n_sigma) return parameter > kLargest<double>;
    if (stage == Stage::top_k || stage == Stage::xtc) return parameter > double(1LL << 32);
    return parameter == 0;
  }

  // False where no entry is left.
  bool apply(Stage stage, double parameter, double t) {
    const T m = largest_or_nan(z_, k_);
    if (!(m > -kInfinity<T>)) return false;
    if (stage == Stage::top_k || stage == Stage::top_p || stage == Stage::min_p) {
      compact(finder_.threshold(stage, parameter, z_, k_, m, t));
    } else {
      const Interval<T> kept = intervals_.interval(stage, parameter, z_, k_, m, t);
      compact({max(kept.low, -kLargest<T>), kAllTies});
      if (kept.high < m) compact_up_to(kept.high);
    }
    return k_ > 0;
  }

  void negate() {
    T* to = reserve(k_);
    for (int64_t i = 0; i < k_; ++i)
      to[i] = absolute(z_[i]) == kInfinity<T> ? -kInfinity<T> : -z_[i];
    z_ = to;
  }

  LOGITLAB_FLATTEN void compact(Threshold<T> threshold) {
    const bool first_stage = !truncated();
    int64_t size = index_.size();
    if (first_stage) {
      const int64_t kept = count_at_least(z_, k_, threshold.value);
      // pack_above writes sixteen entries at a time; own_ may be z_, whose size must not change.
      size = min(kept + kLanes, k_);
      index_.resize(size);
      reserve(size);
    }
    T* to = own_.data();
    const T lowest = -kInfinity<T>;
    const int64_t end = threshold.value == lowest ? 0 : end_of_ties(threshold);
    int64_t n = 0;
    // More entries than were counted are kept where another thread of Python has changed the row.
    const auto pack = [&](int64_t i, int64_t last, T bar) {
      for (; i + kLanes <= last; i += kLanes) {
        if (all_less(Vec<T>(z_ + i), Vec<T>(threshold.value))) continue;
        if (n + kLanes > size) return;
        const uint32_t* numbers = first_stage ? nullptr : index_.data() + i;
        n += pack_above(z_ + i, numbers, uint32_t(i), bar, to + n, index_.data() + n);
      }
      for (; i < last; ++i) {
        const T x = z_[i];
        if (!(x > bar)) continue;
        if (n == size) return;
        to[n] = x;
        index_[n++] = first_stage ? uint32_t(i) : index_[i];
      }
    };
    pack(0, end, next_after(threshold.value, lowest));
    pack(end, k_, threshold.value);
    z_ = to, k_ = n;
  }

  // Removes the entries above `high`, without branches.
  void compact_up_to(T high) {
    const bool first_stage = !truncated();
    if (first_stage) index_.resize(k_);
    reserve(k_);
    T* to = own_.data();
    int64_t n = 0;
    for (int64_t i = 0; i < k_; ++i) {
      const T x = z_[i];
      to[n] = x, index_[n] = first_stage ? uint32_t(i) : index_[i];
      n += x <= high;
    }
    z_ = to, k_ = n;
  }

  // The index after the last tie that is kept.
  int64_t end_of_ties(const Threshold<T>& threshold) const {
    if (threshold.ties == kAllTies) return k_;
    int64_t left = threshold.ties, i = 0;
    for (; i < k_ && left; i += kChunkSize) {
      const int64_t ties = count(z_ + i, min(kChunkSize, k_ - i), threshold.value);
      if (ties >= left) break;
      left -= ties;
    }
    for (; i < k_ && left; ++i) left -= z_[i] == threshold.value;
    return min(i, k_);
  }

  const T* z_ = nullptr;
  int64_t k_ = 0;
  Buffer<T> own_;
  Buffer<uint32_t> index_;  // classes of the entries; empty where nothing was truncated
  ThresholdFinder<T> finder_;
  IntervalFinder<T> intervals_;
};

}  // namespace
}  // namespace LOGITLAB_ISA
}  // namespace logitlab
