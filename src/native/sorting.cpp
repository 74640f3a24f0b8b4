#include "sorting.h"

#include <algorithm>
#include <functional>

namespace logitlab {

void select_nth_largest(float* x, int64_t size, int64_t n) {
  std::nth_element(x, x + (n - 1), x + size, std::greater<>());
}
void select_nth_largest(double* x, int64_t size, int64_t n) {
  std::nth_element(x, x + (n - 1), x + size, std::greater<>());
}

void sort_descending(float* x, int64_t size) { std::sort(x, x + size, std::greater<>()); }
void sort_descending(double* x, int64_t size) { std::sort(x, x + size, std::greater<>()); }

void sort_by_chunk(ChunkDraw* draws, int64_t size) {
  std::sort(draws, draws + size, [](const ChunkDraw& a, const ChunkDraw& b) {
    return a.chunk != b.chunk ? a.chunk < b.chunk : a.draw < b.draw;
  });
}

bool comes_before(const ScoredIndex& a, const ScoredIndex& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

void sort_by_score(ScoredIndex* x, int64_t size) { std::sort(x, x + size, comes_before); }

void push_to_heap(ScoredIndex* heap, int64_t size) {
  std::push_heap(heap, heap + size, comes_before);
}

void replace_worst(ScoredIndex* heap, int64_t size, const ScoredIndex& x) {
  std::pop_heap(heap, heap + size, comes_before);
  heap[size - 1] = x;
  std::push_heap(heap, heap + size, comes_before);
}

}  // namespace logitlab
