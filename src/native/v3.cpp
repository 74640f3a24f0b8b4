#define LOGITLAB_ISA v3
#include "run.h"
