#define LOGITLAB_ISA v3
#include "moments.h"
#include "products.h"
#include "run.h"
