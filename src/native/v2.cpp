#define LOGITLAB_ISA v2
#include "run.h"
