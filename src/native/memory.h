// Memory for large results. What is given back is kept for the next result of about that size:
// a fresh page costs more than the arithmetic on it.
#pragma once

#include <cstddef>

namespace logitlab {

void* take(size_t bytes);  // throws std::bad_alloc
void give_back(void* data);

}  // namespace logitlab
