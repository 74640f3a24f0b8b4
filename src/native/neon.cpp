#define LOGITLAB_ISA neon
#include "moments.h"
#include "products.h"
#include "run.h"
