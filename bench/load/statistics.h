// Figures of a run.
#pragma once

#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "load/records.h"

namespace llorch::bench {

// Of a set of values; by nearest rank, so that each is a value that was seen. Zeros for an empty
// set.
struct Quantiles {
  size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
Quantiles quantiles(std::vector<double> values);

// The value at `share` (0 to 1) of an ascending, nonempty list.
double at_share(const std::vector<double>& ascending, double share);

using Points = std::vector<std::pair<double, double>>;

// Share of the values that are at most x, at up to `most` of them.
Points cumulative(std::vector<double> values, size_t most = 200);

// Values that belong to times, put into equal spans of [0, seconds).
class TimeSeries {
 public:
  TimeSeries(double seconds, size_t spans);

  void add(double at, double value);
  Points share(double share) const;  // this quantile in each span that has values
  Points sums_per_second() const;

 private:
  double middle(size_t span) const { return (static_cast<double>(span) + 0.5) * width_; }

  double width_;
  std::vector<std::vector<double>> values_;
};

struct Summary {
  size_t sent = 0;
  std::array<size_t, kOutcomes> outcomes{};
  size_t refused_without_retry_after = 0;
  std::map<std::string, size_t> codes;  // of all that did not end well
  long long prompt_tokens = 0, cached_tokens = 0, tokens_out = 0;
  double seconds = 0;                     // from the first arrival that was due to the last end
  double most_open = 0;                   // requests at once
  Quantiles ttft, gap, per_token, whole;  // seconds; of a request's tokens but the first, its mean
  Quantiles first_turn_ttft, later_turn_ttft;
  Quantiles path;
  size_t path_failed = 0;
};
Summary summarize(const RunResult& run);

// Requests under way over time: its value from each time on.
Points open_requests(const std::vector<Record>& records);

}  // namespace llorch::bench
