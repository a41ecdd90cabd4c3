#include "load/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace llorch::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMs = 1e3;

// Of the samples taken while the load ran.
struct Machine {
  Quantiles late_p99_ms, late_max_ms, spin, busy, steal, worker_cores, own_cores, worker_mb;
};

Machine machine_of(const RunResult& run) {
  const auto over = [&](float MachineSample::*field) {
    std::vector<double> values;
    for (const MachineSample& s : run.machine) values.push_back(s.*field);
    return quantiles(std::move(values));
  };
  return {over(&MachineSample::late_p99_ms), over(&MachineSample::late_max_ms),
          over(&MachineSample::spin_rate),   over(&MachineSample::busy_share),
          over(&MachineSample::steal_share), over(&MachineSample::worker_cores),
          over(&MachineSample::own_cores),   over(&MachineSample::worker_mb)};
}

double per_second(long long count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::string latency_line(const char* what, const Quantiles& q) {
  return fmt::format("{:<22} p50 {:9.2f}  p90 {:9.2f}  p99 {:9.2f}  max {:9.2f} ms  ({})\n", what,
                     q.p50 * kMs, q.p90 * kMs, q.p99 * kMs, q.max * kMs, q.count);
}

Json latency_json(const Quantiles& q) {
  return {{"count", q.count},   {"mean", q.mean * kMs}, {"p50", q.p50 * kMs},
          {"p90", q.p90 * kMs}, {"p99", q.p99 * kMs},   {"max", q.max * kMs}};
}

Json machine_json(const Machine& m) {
  return {{"timer_late_p99_ms", m.late_p99_ms.p50},
          {"timer_late_p99_worst_second_ms", m.late_p99_ms.max},
          {"timer_late_max_ms", m.late_max_ms.max},
          {"busy_share", m.busy.mean},
          {"steal_share", m.steal.mean},
          {"steal_worst_second", m.steal.max},
          {"loop_m_per_s", m.spin.p50},
          {"loop_best_m_per_s", m.spin.max}};
}

// First example of each, so that a run with a mistake explains itself.
std::string failure_lines(const RunResult& run, const Summary& s) {
  std::string out;
  for (const auto& [code, count] : s.codes) {
    const auto first =
        std::find_if(run.records.begin(), run.records.end(),
                     [&, &wanted = code](const Record& r) { return r.code == wanted; });
    out += fmt::format("  {} x {} ({}) {}\n", count, code, name(first->outcome), first->detail);
  }
  return out;
}

// Panels

const char* const kSeconds = "seconds";

Panel over_time(const char* title, const TimeSeries& series) {
  return {title, kSeconds, "ms", {{"p50", series.share(0.5)}, {"p99", series.share(0.99)}}};
}

Panel shares(const char* title, const char* of_what, std::vector<double> ms) {
  return {title, "ms", of_what, {{"", cumulative(std::move(ms)), true}}, true};
}

void add_path(const RunResult& run, size_t spans, std::vector<Panel>& panels) {
  TimeSeries path(run.seconds, spans);
  std::vector<double> all;
  for (const PathSample& sample : run.path) {
    if (sample.seconds < 0) continue;
    path.add(sample.at, sample.seconds * kMs);
    all.push_back(sample.seconds * kMs);
  }
  panels.push_back(over_time("Health probe", path));
  panels.push_back(shares("Health probe", "share of probes", std::move(all)));
}

void add_machine(const RunResult& run, std::vector<Panel>& panels) {
  Points late, busy, steal;
  for (const MachineSample& s : run.machine) {
    late.emplace_back(s.at, s.late_p99_ms);
    busy.emplace_back(s.at, s.busy_share * 100);
    steal.emplace_back(s.at, s.steal_share * 100);
  }
  panels.push_back({"Machine: timers late", kSeconds, "ms, p99 of a second", {{"", late}}});
  panels.push_back(
      {"Machine: processor time", kSeconds, "% of all cores", {{"busy", busy}, {"stolen", steal}}});
}

}  // namespace

std::string report_text(const Options& options, const RunResult& run) {
  const Summary s = summarize(run);
  std::string out = options.label.empty() ? "" : options.label + "\n";
  out += fmt::format("{} requests in {:.1f} s, at most {:.0f} at once:", s.sent, s.seconds,
                     s.most_open);
  for (size_t i = 0; i < kOutcomes; ++i) {
    out += fmt::format(" {} {}", s.outcomes[i], name(static_cast<Outcome>(i)));
  }
  out += "\n" + failure_lines(run, s);
  if (s.refused_without_retry_after > 0) {
    out += fmt::format("  {} refusals without Retry-After\n", s.refused_without_retry_after);
  }
  out += fmt::format("tokens in {} ({} cached, {:.1f}/s), out {} ({:.1f}/s)\n", s.prompt_tokens,
                     s.cached_tokens, per_second(s.prompt_tokens, s.seconds), s.tokens_out,
                     per_second(s.tokens_out, s.seconds));
  out += latency_line("time to first token", s.ttft);
  if (s.later_turn_ttft.count > 0) {
    out += latency_line("  a first turn's", s.first_turn_ttft);
    out += latency_line("  a later turn's", s.later_turn_ttft);
  }
  out += latency_line("between two tokens", s.gap);
  out += latency_line("  a request's mean", s.per_token);
  out += latency_line("whole request", s.whole);
  if (options.probe_rate > 0) {
    out += latency_line(("GET " + options.probe_path).c_str(), s.path);
    if (s.path_failed > 0) out += fmt::format("  {} of these failed\n", s.path_failed);
  }
  const Machine m = machine_of(run);
  out += fmt::format(
      "machine: timers late by p99 {:.2f} ms (worst second {:.2f}, max {:.2f}), cores busy {:.0f} "
      "%, "
      "stolen {:.1f} % (worst second {:.1f}), a loop's speed {:.0f} M/s (best {:.0f})\n",
      m.late_p99_ms.p50, m.late_p99_ms.max, m.late_max_ms.max, m.busy.mean * 100,
      m.steal.mean * 100, m.steal.max * 100, m.spin.p50, m.spin.max);
  if (options.pid > 0) {
    out += fmt::format("server: {:.2f} cores, at most {:.0f} MB\n", m.worker_cores.mean,
                       m.worker_mb.max);
  }
  out += fmt::format("load generator: {:.2f} cores, at most {:.1f} ms behind its schedule\n",
                     m.own_cores.mean, run.longest_late_s * kMs);
  return out;
}

std::string report_json(const Options& options, const RunResult& run, const std::string& command) {
  const Summary s = summarize(run);
  const Machine m = machine_of(run);
  Json requests = {{"sent", s.sent}};
  for (size_t i = 0; i < kOutcomes; ++i) {
    requests[name(static_cast<Outcome>(i))] = s.outcomes[i];
  }
  requests["refused_without_retry_after"] = s.refused_without_retry_after;
  requests["codes"] = s.codes;
  requests["most_at_once"] = s.most_open;
  Json out = {
      {"label", options.label},
      {"command", command},
      {"steady_clock_start", run.monotonic_start},
      {"seconds", s.seconds},
      {"requests", requests},
      {"tokens",
       {{"in", s.prompt_tokens},
        {"cached", s.cached_tokens},
        {"out", s.tokens_out},
        {"in_per_s", per_second(s.prompt_tokens, s.seconds)},
        {"out_per_s", per_second(s.tokens_out, s.seconds)}}},
      {"ttft_ms", latency_json(s.ttft)},
      {"first_turn_ttft_ms", latency_json(s.first_turn_ttft)},
      {"later_turn_ttft_ms", latency_json(s.later_turn_ttft)},
      {"inter_token_ms", latency_json(s.gap)},
      {"per_token_ms", latency_json(s.per_token)},
      {"request_ms", latency_json(s.whole)},
      {"probe",
       {{"path", options.probe_path}, {"failed", s.path_failed}, {"ms", latency_json(s.path)}}},
      {"machine", machine_json(m)},
      {"server", {{"cores", m.worker_cores.mean}, {"max_mb", m.worker_mb.max}}},
      {"generator", {{"cores", m.own_cores.mean}, {"longest_late_ms", run.longest_late_s * kMs}}}};
  for (const Record& r : run.records) {
    out["records"].push_back({{"scheduled", r.scheduled},
                              {"turn", r.turn},
                              {"prompt_tokens", r.prompt_tokens},
                              {"cached_tokens", r.cached_tokens},
                              {"tokens_out", r.tokens_out},
                              {"events", r.events},
                              {"ttft_ms", r.events > 0 ? (r.first - r.scheduled) * kMs : 0},
                              {"ended", r.ended},
                              {"outcome", name(r.outcome)},
                              {"code", r.code}});
  }
  return out.dump(1) + "\n";
}

std::vector<Panel> report_panels(const RunResult& run) {
  // Sums rather than samples need spans that are wide beside a step; none is under 50 ms.
  const auto spans = static_cast<size_t>(std::clamp(run.seconds / 0.05, 1.0, 120.0));
  TimeSeries ttft(run.seconds, spans), gaps(run.seconds, spans), tokens(run.seconds, spans),
      open(run.seconds, spans);
  std::vector<double> all_ttft, all_gaps;
  for (const Record& r : run.records) {
    if (r.events == 0) continue;
    ttft.add(r.first, (r.first - r.scheduled) * kMs);
    tokens.add(r.first, 1);
    all_ttft.push_back((r.first - r.scheduled) * kMs);
  }
  for (const Gap& gap : run.gaps) {
    gaps.add(gap.at, gap.seconds * kMs);
    tokens.add(gap.at, 1);
    all_gaps.push_back(gap.seconds * kMs);
  }
  for (const auto& [at, count] : open_requests(run.records)) open.add(at, count);
  std::vector<Panel> panels = {
      over_time("Time to first token", ttft),
      over_time("Between two tokens", gaps),
      {"Tokens out", kSeconds, "a second", {{"", tokens.sums_per_second()}}},
      {"Requests under way", kSeconds, "most", {{"", open.share(1), true}}},
      shares("Time to first token", "share of requests", std::move(all_ttft)),
      shares("Between two tokens", "share of tokens", std::move(all_gaps)),
  };
  if (!run.path.empty()) add_path(run, spans, panels);
  add_machine(run, panels);
  return panels;
}

std::string report_trace(const RunResult& run) {
  std::string out = "seconds,gap,request\n";
  for (const Gap& gap : run.gaps) {
    out += fmt::format("{:.6f},{:.6f},{}\n", run.monotonic_start + static_cast<double>(gap.at),
                       gap.seconds, gap.request);
  }
  return out;
}

}  // namespace llorch::bench
