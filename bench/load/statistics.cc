#include "load/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace llorch::bench {

const char* name(Outcome outcome) {
  constexpr const char* kNames[kOutcomes] = {"ok",      "cancelled", "disconnected",
                                             "refused", "failed",    "lost"};
  return kNames[static_cast<size_t>(outcome)];
}

double at_share(const std::vector<double>& ascending, double share) {
  const auto count = static_cast<double>(ascending.size());
  const double rank = std::clamp(std::ceil(share * count), 1.0, count);
  return ascending[static_cast<size_t>(rank) - 1];
}

Quantiles quantiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {.count = values.size(),
          .mean = sum / static_cast<double>(values.size()),
          .p50 = at_share(values, 0.5),
          .p90 = at_share(values, 0.9),
          .p99 = at_share(values, 0.99),
          .max = values.back()};
}

Points cumulative(std::vector<double> values, size_t most) {
  std::sort(values.begin(), values.end());
  const size_t count = values.size(), points = std::min(count, most);
  Points out;
  for (size_t i = 1; i <= points; ++i) {
    const size_t rank = count * i / points;
    out.emplace_back(values[rank - 1], static_cast<double>(rank) / static_cast<double>(count));
  }
  return out;
}

TimeSeries::TimeSeries(double seconds, size_t spans)
    : width_(std::max(seconds, 1e-9) / static_cast<double>(spans)), values_(spans) {}

void TimeSeries::add(double at, double value) {
  const double last = static_cast<double>(values_.size()) - 1;
  values_[static_cast<size_t>(std::clamp(std::floor(at / width_), 0.0, last))].push_back(value);
}

Points TimeSeries::share(double share) const {
  Points out;
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].empty()) continue;
    std::vector<double> ascending = values_[i];
    std::sort(ascending.begin(), ascending.end());
    out.emplace_back(middle(i), at_share(ascending, share));
  }
  return out;
}

Points TimeSeries::sums_per_second() const {
  Points out;
  for (size_t i = 0; i < values_.size(); ++i) {
    const double sum = std::accumulate(values_[i].begin(), values_[i].end(), 0.0);
    out.emplace_back(middle(i), sum / width_);
  }
  return out;
}

Points open_requests(const std::vector<Record>& records) {
  std::vector<std::pair<double, int>> changes;
  for (const Record& r : records) {
    changes.emplace_back(r.sent, 1);
    changes.emplace_back(r.ended, -1);
  }
  std::sort(changes.begin(), changes.end());
  Points out;
  int open = 0;
  for (const auto& [at, change] : changes) {
    open += change;
    out.emplace_back(at, open);
  }
  return out;
}

Summary summarize(const RunResult& run) {
  Summary s;
  std::vector<double> ttft, first_turn, later_turn, per_token, whole, gaps, path;
  double begin = run.seconds, end = 0;
  for (const Record& r : run.records) {
    ++s.sent;
    ++s.outcomes[static_cast<size_t>(r.outcome)];
    if (r.outcome == Outcome::kRefused && !r.retry_after) ++s.refused_without_retry_after;
    if (!r.code.empty()) ++s.codes[r.code];
    s.prompt_tokens += r.prompt_tokens;
    s.cached_tokens += r.cached_tokens;
    s.tokens_out += r.tokens_out;
    begin = std::min(begin, r.scheduled);
    end = std::max(end, r.ended);
    if (r.events > 0) {
      ttft.push_back(r.first - r.scheduled);
      (r.turn == 0 ? first_turn : later_turn).push_back(ttft.back());
    }
    if (r.events > 1) per_token.push_back((r.last - r.first) / (r.events - 1));
    if (r.outcome == Outcome::kOk) whole.push_back(r.ended - r.scheduled);
  }
  for (const Gap& gap : run.gaps) gaps.push_back(gap.seconds);
  for (const PathSample& sample : run.path) {
    if (sample.seconds < 0) {
      ++s.path_failed;
    } else {
      path.push_back(sample.seconds);
    }
  }
  for (const auto& [at, open] : open_requests(run.records)) {
    s.most_open = std::max(s.most_open, open);
  }
  s.seconds = std::max(end - begin, 0.0);
  s.ttft = quantiles(std::move(ttft));
  s.first_turn_ttft = quantiles(std::move(first_turn));
  s.later_turn_ttft = quantiles(std::move(later_turn));
  s.gap = quantiles(std::move(gaps));
  s.per_token = quantiles(std::move(per_token));
  s.whole = quantiles(std::move(whole));
  s.path = quantiles(std::move(path));
  return s;
}

}  // namespace llorch::bench
