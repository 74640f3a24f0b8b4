#define LOGITLAB_ISA v4
#include "products.h"
#include "sample_kernel.h"
#include "second_products.h"
#include "shard_kernel.h"
#include "small_row_scores.h"
#include "temperature_loss.h"
