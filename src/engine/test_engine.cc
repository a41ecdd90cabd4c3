#include "engine/test_engine.h"

#include <utility>

namespace llorch {
namespace {

EngineOptions with_clock(EngineOptions options, const TestClock& clock) {
  if (options.context == 0) options.context = 256;
  options.now = [&clock] { return clock.now(); };
  return options;
}

struct Describe {
  std::string operator()(const StartedEvent& e) const {
    return "started(" + std::to_string(e.prompt_tokens) + ")";
  }
  std::string operator()(const TokenEvent& e) const {
    std::string text = "token(" + e.text;
    if (!e.logprob) return text + ")";
    text += "," + std::to_string(e.id) + "," + std::to_string(*e.logprob) + ",[";
    for (const TokenLogprob& top : e.top) {
      text += (text.back() == '[' ? "" : " ") + std::to_string(top.token) + ":" +
              std::to_string(top.logprob);
    }
    return text + "])";
  }
  std::string operator()(const MetricsEvent& e) const {
    return "metrics(" + std::to_string(e.tokens_per_sec) + ")";
  }
  std::string operator()(const EndEvent& e) const {
    const char* const reasons[] = {"MAX_TOKENS", "EOS", "STOP_SEQUENCE"};
    std::string text = "end(" + std::string(reasons[static_cast<int>(e.reason)]) + "," +
                       std::to_string(e.tokens_out);
    if (e.stop_sequence) text += "," + *e.stop_sequence;
    return text + ")";
  }
  std::string operator()(const FailedEvent& e) const {
    return "failed(" + std::string(e.code) + (e.retriable ? ",retriable)" : ")");
  }
};

}  // namespace

TestEngine::TestEngine(EngineOptions options, TestKind kind)
    : model(options.context == 0 ? 256 : options.context, kind),
      engine(model.backend, model.model, model.tokenizer, with_clock(std::move(options), clock)) {}

Request test_request(std::string job_id, std::string_view prompt, int32_t max_tokens) {
  Request request;
  request.job_id = std::move(job_id);
  request.prompt = test_ids(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

std::vector<Event> all_events(Reader& reader) {
  std::vector<Event> events;
  while (const auto event = reader.next()) events.push_back(*event);
  return events;
}

std::string described(const std::vector<Event>& events) {
  std::string text;
  for (const Event& event : events) {
    text += (text.empty() ? "" : " ") + std::visit(Describe{}, event);
  }
  return text;
}

}  // namespace llorch
