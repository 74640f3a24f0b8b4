#define LOGITLAB_ISA neon
#include "products.h"
#include "sample_kernel.h"
#include "temperature_loss.h"
