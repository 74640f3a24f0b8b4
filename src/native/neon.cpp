#define LOGITLAB_ISA neon
#include "moments.h"
#include "run.h"
