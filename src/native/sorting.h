// Sorting and selection, compiled once for all instruction sets.
#pragma once

#include <cstdint>

namespace logitlab {

// x[n - 1] becomes the n-th largest of `size` numbers.
void select_nth_largest(float* x, int64_t size, int64_t n);
void select_nth_largest(double* x, int64_t size, int64_t n);

void sort_descending(float* x, int64_t size);
void sort_descending(double* x, int64_t size);

// A draw, and the chunk of the row in which its class is.
struct ChunkDraw {
  int64_t chunk, draw;
};
void sort_by_chunk(ChunkDraw* draws, int64_t size);

// An entry of a row and its score. Higher scores come first, then lower indices.
struct ScoredIndex {
  double score;
  int64_t index;
};
bool comes_before(const ScoredIndex& a, const ScoredIndex& b);
void sort_by_score(ScoredIndex* x, int64_t size);
// Appends the last of `size` entries to a heap of the others, whose first is the worst.
void push_to_heap(ScoredIndex* heap, int64_t size);
// Replaces the worst entry of a heap.
void replace_worst(ScoredIndex* heap, int64_t size, const ScoredIndex& x);

}  // namespace logitlab
