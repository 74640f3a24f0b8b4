#define LOGITLAB_ISA v4
#include "moments.h"
#include "products.h"
#include "run.h"
