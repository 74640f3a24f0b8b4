#define LOGITLAB_ISA v4
#include "run.h"
