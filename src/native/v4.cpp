#define LOGITLAB_ISA v4
#include "draw.h"
#include "moments.h"
#include "products.h"
