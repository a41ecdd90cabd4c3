// Puts a load on a worker, or on another server of OpenAI's completions, and prints what its
// clients saw: time to first token, time between tokens, throughput, refusals, what was lost.
//
//   load_bench --port 8080 --rate 5 --duration 60 --prompt-tokens lognormal:200,0.8,2000
//              --output-tokens uniform:16-256 --plot load.svg --json load.json
//
// Arrivals do not wait for answers, and a latency counts from when its request was due. The exit
// status is 1 if a request was lost.
#include <sys/resource.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "load/report.h"
#include "load/run.h"

namespace llorch::bench {
namespace {

// A socket for every request under way.
void allow_many_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void write_file(const std::string& path, const std::string& content) {
  if (path.empty()) return;
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) throw std::runtime_error(path + ": could not be written");
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  std::string command;
  for (int i = 0; i < argc; ++i) command += (i > 0 ? " " : "") + std::string(argv[i]);
  allow_many_files();
  const RunResult result = run_load(options);
  std::fputs(report_text(options, result).c_str(), stdout);
  write_file(options.json_file, report_json(options, result, command));
  if (!options.plot_file.empty()) {
    write_file(options.plot_file, draw_svg(options.label.empty() ? "load_bench" : options.label,
                                           report_panels(result)));
  }
  if (!options.trace_file.empty()) write_file(options.trace_file, report_trace(result));
  for (const Record& record : result.records) {
    if (record.outcome == Outcome::kLost) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace llorch::bench

int main(int argc, char** argv) {
  try {
    return llorch::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
