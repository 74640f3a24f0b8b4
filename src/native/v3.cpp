#define LOGITLAB_ISA v3
#include "moments.h"
#include "run.h"
