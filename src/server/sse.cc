#include "server/sse.h"

#include "base/log.h"
#include "server/json_text.h"

namespace llorch {

std::string SseWriter::write(const Event& event) {
  return "data: " + std::visit([this](const auto& e) { return json(e); }, event) + "\n\n";
}

std::string SseWriter::json(const StartedEvent& e) const {
  return R"({"type":"started","job_id":)" + json_string(facts_.job_id) +
         ",\"model\":" + json_string(facts_.model) +
         ",\"started_at\":" + json_string(rfc3339(e.at)) + ",\"seed\":" + std::to_string(e.seed) +
         ",\"prompt_tokens\":" + std::to_string(e.prompt_tokens) +
         ",\"cached_tokens\":" + std::to_string(e.cached_tokens) + "}";
}

std::string SseWriter::json(const TokenEvent& e) const {
  std::string out =
      R"({"type":"token","t":)" + json_string(e.text) + ",\"i\":" + std::to_string(e.index);
  if (e.logprob) {
    out += ",\"id\":" + std::to_string(e.id) + ",\"logprob\":" + json_number(*e.logprob);
    if (!e.top.empty()) {
      out += ",\"top_logprobs\":[";
      for (const TokenLogprob& top : e.top) {
        if (out.back() != '[') out += ',';
        out += "{\"id\":" + std::to_string(top.token) + ",\"logprob\":" + json_number(top.logprob) +
               "}";
      }
      out += ']';
    }
  }
  return out + "}";
}

std::string SseWriter::json(const MetricsEvent& e) const {
  return R"({"type":"metrics","tokens_per_sec":)" + json_number(e.tokens_per_sec) +
         ",\"vram_bytes\":" + std::to_string(facts_.weight_bytes) + "}";
}

std::string SseWriter::json(const EndEvent& e) const {
  std::string out = R"({"type":"end","tokens_out":)" + std::to_string(e.tokens_out) +
                    ",\"decode_time_ms\":" + std::to_string(e.decode_time.count()) +
                    ",\"stop_reason\":\"" + name(e.reason) + "\"";
  if (e.stop_sequence) out += ",\"stop_sequence_matched\":" + json_string(*e.stop_sequence);
  if (e.energy_j) out += ",\"energy_j\":" + json_number(*e.energy_j, kEnergyDigits);
  return out + "}";
}

std::string SseWriter::json(const FailedEvent& e) const {
  return R"({"type":"error","code":)" + json_string(e.code) +
         ",\"message\":" + json_string(e.message) +
         ",\"retriable\":" + (e.retriable ? "true" : "false") + "}";
}

}  // namespace llorch
