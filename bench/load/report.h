// A run's figures as text, JSON and plots.
#pragma once

#include <string>
#include <vector>

#include "load/options.h"
#include "load/plot.h"
#include "load/statistics.h"

namespace llorch::bench {

std::string report_text(const Options& options, const RunResult& run);
// `command`: what was run, as it was typed.
std::string report_json(const Options& options, const RunResult& run, const std::string& command);
std::vector<Panel> report_panels(const RunResult& run);
// "seconds,gap,request" lines; seconds by the steady clock.
std::string report_trace(const RunResult& run);

}  // namespace llorch::bench
