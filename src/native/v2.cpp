#define LOGITLAB_ISA v2
#include "moments.h"
#include "products.h"
#include "run.h"
