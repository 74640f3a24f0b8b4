// Memory for large results. Freed blocks are kept for later results of about the same size: new
// pages cost more than the arithmetic on them.
#pragma once

#include <cstddef>

namespace logitlab {

void* allocate_result(size_t bytes);  // throws std::bad_alloc
void free_result(void* data);

}  // namespace logitlab
