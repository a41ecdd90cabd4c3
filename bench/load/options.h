// The command line of load_bench.
#pragma once

#include <cstdint>
#include <string>

#include "load/stream_reader.h"
#include "load/workload.h"

namespace llorch::bench {

struct Options {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  Api api = Api::kExecute;
  std::string model = "model";  // in OpenAI's requests
  int pid = 0;

  ArrivalKind arrivals = ArrivalKind::kPoisson;
  double rate = 1;
  int concurrency = 0;    // of a closed loop; 0: arrivals do not wait for ends
  uint64_t requests = 0;  // conversations; 0: as many as begin within the duration
  double duration_s = 0;
  double timeout_s = 600;
  double think_s = 0;  // mean pause before a conversation's next turn
  double temperature = 1;
  WorkloadOptions workload;

  std::string probe_path = "/health";
  double probe_rate = 0;  // 0: no probe
  std::string label, json_file, plot_file, trace_file;
};

// Ends the process with a message after --help or a mistake.
Options parse_options(int argc, char** argv);

}  // namespace llorch::bench
