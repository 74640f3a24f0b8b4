#define LOGITLAB_ISA v2
#include "draw.h"
#include "moments.h"
#include "products.h"
