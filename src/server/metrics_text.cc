#include "server/metrics_text.h"

#include <array>
#include <charconv>
#include <utility>

namespace llorch {
namespace {

// All families together; the model's name adds to it. One allocation for a scrape.
constexpr size_t kUsualBytes = 32 * 1024;

template <class Number>
void append(std::string& text, Number value) {
  std::array<char, 32> digits;
  text.append(digits.data(),
              std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

// As Python's client prints it, so that our `le` labels are the same texts as vLLM's: 0.5, 1.0,
// 20000.0, 1e+06.
void append_bound(std::string& text, double bound) {
  if (bound >= 1e6) return append(text, bound);
  std::array<char, 32> digits;
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), bound, std::chars_format::fixed)
          .ptr;
  const std::string_view fixed(digits.data(), static_cast<size_t>(end - digits.data()));
  text += fixed;
  if (fixed.find('.') == fixed.npos) text += ".0";
}

}  // namespace

std::string MetricsWriter::labels(std::initializer_list<Label> labels) {
  std::string text;
  for (const Label& label : labels) {
    if (!text.empty()) text += ',';
    text += label.name;
    text += "=\"";
    for (const char c : label.value) {
      if (c == '\n') {
        text += "\\n";
        continue;
      }
      if (c == '\\' || c == '"') text += '\\';
      text += c;
    }
    text += '"';
  }
  return text;
}

void MetricsWriter::family(std::string_view name, std::string_view type, std::string_view help) {
  if (text_.empty()) text_.reserve(kUsualBytes);
  name_ = name;
  text_.append("# HELP ").append(name).append(" ").append(help);
  text_.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void MetricsWriter::begin(std::string_view suffix, std::string_view labels) {
  text_.append(name_).append(suffix);
  if (!labels.empty()) text_.append("{").append(labels).append("}");
  text_ += ' ';
}

void MetricsWriter::sample(std::string_view labels, uint64_t value) {
  begin("", labels);
  append(text_, value);
  text_ += '\n';
}

void MetricsWriter::sample(std::string_view labels, double value) {
  begin("", labels);
  append(text_, value);
  text_ += '\n';
}

void MetricsWriter::counter(std::string_view name, std::string_view help, std::string_view labels,
                            uint64_t value) {
  family(name, "counter", help);
  sample(labels, value);
}

void MetricsWriter::gauge(std::string_view name, std::string_view help, std::string_view labels,
                          double value) {
  family(name, "gauge", help);
  sample(labels, value);
}

void MetricsWriter::histogram(std::string_view name, std::string_view help, std::string_view labels,
                              const Histogram& histogram) {
  family(name, "histogram", help);
  uint64_t count = 0;
  const size_t bounds = histogram.bounds().size();
  for (size_t i = 0; i <= bounds; ++i) {
    text_.append(name).append("_bucket{").append(labels);
    text_ += labels.empty() ? "le=\"" : ",le=\"";
    if (i < bounds) {
      append_bound(text_, histogram.bounds()[i]);
    } else {
      text_ += "+Inf";
    }
    text_ += "\"} ";
    count += histogram.buckets()[i].load(std::memory_order_relaxed);
    append(text_, count);
    text_ += '\n';
  }
  begin("_count", labels);
  append(text_, count);
  text_ += '\n';
  begin("_sum", labels);
  append(text_, histogram.sum());
  text_ += '\n';
}

namespace {

// The contract's names, and what else an operator of this worker looks for.
void write_own(MetricsWriter& text, const Engine& engine, const EngineSnapshot& now,
               const ServerFigures& server) {
  const EngineMetrics& m = engine.metrics();
  text.family("worker_requests_total", "counter",
              "Requests to generate that have ended, by outcome; refused: answered 429 or 503.");
  for (size_t i = 0; i < m.outcomes.size(); ++i) {
    text.sample(MetricsWriter::labels({{"outcome", kOutcomeNames[i]}}), m.outcomes[i].value());
  }
  text.sample(MetricsWriter::labels({{"outcome", "refused"}}), server.refused);
  text.counter("worker_tokens_in_total", "Prompt tokens of requests that have begun.", "",
               m.tokens_in.value());
  text.counter("worker_tokens_generated_total", "Tokens generated, without those that end a text.",
               "", m.tokens_out.value());
  text.histogram("worker_inference_duration_ms",
                 "Milliseconds from the first step to the last, of requests that ended well.", "",
                 m.inference_ms);
  text.gauge("worker_vram_bytes", "Device memory held for weights.", "",
             static_cast<double>(server.weight_bytes));
  text.gauge("worker_uptime_seconds", "Seconds since the worker began to listen.", "",
             server.uptime_s);
  text.counter("worker_steps_total", "Steps of the engine.", "", m.steps.value());
  if (const std::optional<double> joules = engine.energy_j()) {
    text.family(
        "worker_energy_joules_total", "counter",
        "Joules that the device has drawn since the worker opened it, idle times included.");
    text.sample("", *joules);
  }
  text.family("worker_kv_blocks", "gauge", "Blocks of the kv cache, of all groups together.");
  text.sample(R"(state="used")", static_cast<double>(now.blocks_used));
  text.sample(R"(state="free")", static_cast<double>(now.blocks_total - now.blocks_used));
  text.gauge("worker_connections", "Open connections.", "", server.connections);
  text.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", "",
             static_cast<double>(server.resident_bytes));
}

void write_vllm_state(MetricsWriter& text, const Engine& engine, const EngineSnapshot& now,
                      const std::string& labels) {
  text.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", labels,
             now.running);
  text.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", labels,
             now.waiting);
  text.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", labels,
             static_cast<double>(now.kv_usage));
  const std::string block_tokens = std::to_string(engine.block_tokens());
  const std::string blocks = std::to_string(engine.group_blocks());
  text.gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
             MetricsWriter::labels({{"block_size", block_tokens},
                                    {"num_gpu_blocks", blocks},
                                    {"enable_prefix_caching", "True"},
                                    {"engine", "0"}}),
             1);
}

void write_vllm_counters(MetricsWriter& text, const EngineMetrics& m, const EngineSnapshot& now,
                         const std::string& labels) {
  text.counter("vllm:prefix_cache_queries_total",
               "Prefix cache queries, in terms of number of queried tokens.", labels,
               now.prefix_query_tokens);
  text.counter("vllm:prefix_cache_hits_total",
               "Prefix cache hits, in terms of number of cached tokens.", labels,
               now.prefix_hit_tokens);
  text.counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
               labels, now.preemptions);
  text.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", labels,
               m.tokens_in.value());
  text.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", labels,
               m.tokens_out.value());
  text.counter("vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.", labels,
               m.drafts.value());
  text.counter("vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.", labels,
               m.draft_tokens.value());
  text.counter("vllm:spec_decode_num_accepted_tokens_total", "Number of accepted tokens.", labels,
               m.right_draft_tokens.value());
  text.family("vllm:request_success_total", "counter", "Count of successfully processed requests.");
  const auto ended = [&](std::initializer_list<Outcome> outcomes) {
    uint64_t sum = 0;
    for (const Outcome outcome : outcomes) sum += m.outcomes[static_cast<size_t>(outcome)].value();
    return sum;
  };
  const std::pair<const char*, uint64_t> reasons[] = {
      {"stop", ended({Outcome::kEos, Outcome::kStopSequence})},
      {"length", ended({Outcome::kMaxTokens})},
      {"abort", ended({Outcome::kCancelled, Outcome::kTimeout})},
      {"error", ended({Outcome::kVramOom, Outcome::kInferenceFailed})}};
  for (const auto& [reason, count] : reasons) {
    text.sample(labels + "," + MetricsWriter::labels({{"finished_reason", reason}}), count);
  }
}

void write_vllm_histograms(MetricsWriter& text, const EngineMetrics& m, const std::string& labels) {
  struct Row {
    const char *name, *help;
    const Histogram& histogram;
  };
  const Row rows[] = {
      {"iteration_tokens_total", "Histogram of number of tokens per engine_step.", m.step_tokens},
      {"time_to_first_token_seconds", "Histogram of time to first token in seconds.",
       m.time_to_first_token},
      {"inter_token_latency_seconds", "Histogram of inter-token latency in seconds.",
       m.inter_token_latency},
      {"request_time_per_output_token_seconds",
       "Histogram of time_per_output_token_seconds per request.", m.request_time_per_token},
      {"e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.",
       m.e2e_latency},
      {"request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
       m.queue_time},
      {"request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
       m.inference_time},
      {"request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
       m.prefill_time},
      {"request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
       m.decode_time},
      {"request_prompt_tokens", "Number of prefill tokens processed.", m.request_prompt_tokens},
      {"request_generation_tokens", "Number of generation tokens processed.",
       m.request_generation_tokens},
  };
  for (const Row& row : rows) {
    text.histogram(std::string("vllm:") + row.name, row.help, labels, row.histogram);
  }
}

}  // namespace

std::string metrics_text(const Engine& engine, const ServerFigures& server) {
  MetricsWriter text;
  const EngineSnapshot now = engine.snapshot();
  const std::string labels =
      MetricsWriter::labels({{"model_name", server.model_name}, {"engine", "0"}});
  write_own(text, engine, now, server);
  write_vllm_state(text, engine, now, labels);
  write_vllm_counters(text, engine.metrics(), now, labels);
  write_vllm_histograms(text, engine.metrics(), labels);
  return text.take();
}

}  // namespace llorch
