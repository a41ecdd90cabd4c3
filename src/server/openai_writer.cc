#include "server/openai_writer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "server/json_text.h"
#include "server/openai_error.h"

namespace llorch {
namespace {

// Bytes that are not UTF-8 by themselves, as OpenAI shows them: \xe2\x82.
std::string readable(std::string_view bytes) {
  if (is_utf8(bytes)) return std::string(bytes);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

const char* finish_reason(StopReason reason) {
  return reason == StopReason::kMaxTokens ? "length" : "stop";
}

void append(std::string& list, const std::string& item) {
  if (!list.empty()) list += ',';
  list += item;
}

// The logprobs of a completion or of one chunk of it, collected token by token.
class Logprobs {
 public:
  Logprobs(bool chat, const Tokenizer* tokenizer) : chat_(chat), tokenizer_(tokenizer) {}

  void add(const TokenEvent& event) {
    if (!event.logprob) return;  // the rest of the tokens before
    if (chat_) {
      add_to_chat(event);
    } else {
      add_to_completion(event);
    }
  }
  // What was added since the last call.
  std::string take() {
    std::string json;
    if (chat_) {
      json = "{\"content\":[" + items_ + "],\"refusal\":null}";
    } else {
      json = "{\"tokens\":[" + items_ + "],\"token_logprobs\":[" + logprobs_ +
             "],\"top_logprobs\":[" + top_ + "],\"text_offset\":[" + offsets_ + "]}";
    }
    for (std::string* list : {&items_, &logprobs_, &top_, &offsets_}) list->clear();
    return json;
  }

 private:
  std::string one(int32_t id, float logprob) const {
    const std::string_view bytes = tokenizer_->token_bytes(id);
    std::string numbers;
    for (const char c : bytes) append(numbers, std::to_string(static_cast<uint8_t>(c)));
    return "\"token\":" + json_string(readable(bytes)) + ",\"logprob\":" + json_number(logprob) +
           ",\"bytes\":[" + numbers + "]";
  }
  void add_to_chat(const TokenEvent& event) {
    std::string top;
    for (const TokenLogprob& t : event.top) append(top, "{" + one(t.token, t.logprob) + "}");
    append(items_, "{" + one(event.id, *event.logprob) + ",\"top_logprobs\":[" + top + "]}");
  }

  std::string key(int32_t id) const {
    const std::string_view bytes = tokenizer_->token_bytes(id);
    return json_string((is_utf8(bytes) ? "" : "bytes:") + readable(bytes));
  }
  void add_to_completion(const TokenEvent& event) {
    append(items_, key(event.id));
    append(logprobs_, json_number(*event.logprob));
    // Of tokens with the same text the likeliest counts; the chosen one is always there.
    std::vector<std::string> keys;
    std::string top;
    const auto add = [&](int32_t id, float logprob) {
      const std::string text = key(id);
      if (std::find(keys.begin(), keys.end(), text) != keys.end()) return;
      keys.push_back(text);
      append(top, text + ":" + json_number(logprob));
    };
    for (const TokenLogprob& t : event.top) add(t.token, t.logprob);
    add(event.id, *event.logprob);
    append(top_, "{" + top + "}");
    append(offsets_, std::to_string(offset_));
    if (tokenizer_->is_special(event.id)) return;
    for (const char c : tokenizer_->token_bytes(event.id)) offset_ += (c & 0xC0) != 0x80;
  }

  const bool chat_;
  const Tokenizer* const tokenizer_;
  std::string items_, logprobs_, top_, offsets_;
  size_t offset_ = 0;  // characters of the text before
};

// What both forms share.
class Writer : public EventWriter {
 protected:
  explicit Writer(CompletionFacts facts)
      : facts_(std::move(facts)), logprobs_(facts_.chat, facts_.tokenizer) {}

  std::string head(const char* object) const {
    std::string out = "{\"id\":" + json_string(facts_.id) + ",\"object\":\"" + object +
                      "\",\"created\":" + std::to_string(facts_.created) +
                      ",\"model\":" + json_string(facts_.model);
    if (facts_.chat) out += ",\"service_tier\":\"default\"";
    return out + ",\"system_fingerprint\":" + json_string(facts_.fingerprint) + ",\"choices\":[";
  }
  std::string usage(const EndEvent& end) const {
    std::string out =
        "{\"prompt_tokens\":" + std::to_string(started_.prompt_tokens) +
        ",\"completion_tokens\":" + std::to_string(end.tokens_out) +
        ",\"total_tokens\":" + std::to_string(started_.prompt_tokens + end.tokens_out) +
        ",\"prompt_tokens_details\":{\"cached_tokens\":" + std::to_string(started_.cached_tokens) +
        "}";
    if (end.energy_j) out += ",\"energy_j\":" + json_number(*end.energy_j, kEnergyDigits);
    return out + "}";
  }

  const CompletionFacts facts_;
  Logprobs logprobs_;
  StartedEvent started_;
};

class ChunkWriter : public Writer {
 public:
  explicit ChunkWriter(CompletionFacts facts)
      : Writer(std::move(facts)),
        head_("data: " + head(facts_.chat ? "chat.completion.chunk" : "text_completion")) {}
  bool streams() const override { return true; }

  std::string write(const Event& event) override {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      started_ = *started;
      if (facts_.chat) return chunk(R"({"role":"assistant","content":"","refusal":null})");
      return facts_.echo.empty() ? "" : chunk(json_string(facts_.echo));
    }
    if (const auto* token = std::get_if<TokenEvent>(&event)) {
      std::string logprobs;
      if (token->logprob) {
        logprobs_.add(*token);
        logprobs = logprobs_.take();
      }
      const std::string text = json_string(token->text);
      return chunk(facts_.chat ? "{\"content\":" + text + "}" : text, logprobs);
    }
    if (const auto* end = std::get_if<EndEvent>(&event)) return last(*end);
    if (const auto* failed = std::get_if<FailedEvent>(&event)) {
      return "data: " + error_json(error_of(*failed)) + "\n\n";
    }
    return "";
  }

 private:
  // `what` is the delta of a chat, the text of a completion.
  std::string chunk(const std::string& what, const std::string& logprobs = "",
                    const char* reason = nullptr) const {
    std::string out = head_ + "{\"index\":0,\"" + (facts_.chat ? "delta" : "text") + "\":" + what +
                      ",\"logprobs\":" + (logprobs.empty() ? "null" : logprobs) +
                      ",\"finish_reason\":";
    out += reason ? "\"" + std::string(reason) + "\"" : "null";
    return out + (facts_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
  }
  std::string last(const EndEvent& end) const {
    std::string out = chunk(facts_.chat ? "{}" : "\"\"", "", finish_reason(end.reason));
    if (facts_.include_usage) out += head_ + "],\"usage\":" + usage(end) + "}\n\n";
    return out + "data: [DONE]\n\n";
  }

  const std::string head_;
};

class WholeWriter : public Writer {
 public:
  explicit WholeWriter(CompletionFacts facts) : Writer(std::move(facts)), text_(facts_.echo) {}
  bool streams() const override { return false; }
  int status() const override { return status_; }

  std::string write(const Event& event) override {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      started_ = *started;
    } else if (const auto* token = std::get_if<TokenEvent>(&event)) {
      text_ += token->text;
      logprobs_.add(*token);
    } else if (const auto* failed = std::get_if<FailedEvent>(&event)) {
      const OpenAiError error = error_of(*failed);
      status_ = error.status;
      return error_json(error);
    } else if (const auto* end = std::get_if<EndEvent>(&event)) {
      return answer(*end);
    }
    return "";
  }

 private:
  std::string answer(const EndEvent& end) {
    std::string out = head(facts_.chat ? "chat.completion" : "text_completion") + "{\"index\":0,";
    if (facts_.chat) {
      out += "\"message\":{\"role\":\"assistant\",\"content\":" + json_string(text_) +
             ",\"refusal\":null,\"annotations\":[]}";
    } else {
      out += "\"text\":" + json_string(text_);
    }
    out += ",\"logprobs\":" + (facts_.logprobs ? logprobs_.take() : "null");
    return out + ",\"finish_reason\":\"" + finish_reason(end.reason) +
           "\"}],\"usage\":" + usage(end) + "}";
  }

  std::string text_;
  int status_ = 200;
};

}  // namespace

std::unique_ptr<EventWriter> chunk_writer(CompletionFacts facts) {
  return std::make_unique<ChunkWriter>(std::move(facts));
}
std::unique_ptr<EventWriter> whole_writer(CompletionFacts facts) {
  return std::make_unique<WholeWriter>(std::move(facts));
}

std::string model_json(const std::string& name, int64_t created) {
  return "{\"id\":" + json_string(name) +
         ",\"object\":\"model\",\"created\":" + std::to_string(created) +
         ",\"owned_by\":\"llorch\"}";
}

std::string model_list_json(const std::string& name, int64_t created) {
  return "{\"object\":\"list\",\"data\":[" + model_json(name, created) + "]}";
}

}  // namespace llorch
