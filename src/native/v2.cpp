#define LOGITLAB_ISA v2
#include "moments.h"
#include "run.h"
