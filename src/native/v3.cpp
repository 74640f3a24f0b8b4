#define LOGITLAB_ISA v3
#include "draw.h"
#include "moments.h"
#include "products.h"
