#define LOGITLAB_ISA neon
#include "run.h"
