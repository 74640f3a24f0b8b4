#define LOGITLAB_ISA v4
#include "moments.h"
#include "run.h"
