// Runs a load to its end.
#pragma once

#include "load/options.h"
#include "load/records.h"

namespace llorch::bench {

RunResult run_load(const Options& options);

}  // namespace llorch::bench
