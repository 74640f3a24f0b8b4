// Memory for large results and for intermediate ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace logitlab {

// Bytes from which new memory pages cost more than reused ones.
constexpr int64_t kLargeResult = int64_t(1) << 22;

// Memory for large results. Freed blocks are kept for later results of about the same size: new
// pages cost more than the arithmetic on them.
void* allocate_result(size_t bytes);
void free_result(void* data);

// Aligned for every register.
void* allocate_workspace(size_t bytes);
void free_workspace(void* data);

// Both throw a std::bad_alloc whose text has the number of bytes.

}  // namespace logitlab
