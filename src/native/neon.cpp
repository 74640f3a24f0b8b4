#define LOGITLAB_ISA neon
#include "draw.h"
#include "moments.h"
#include "products.h"
