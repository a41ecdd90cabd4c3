#include "load/stream_reader.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

namespace llorch::bench {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kDone = "[DONE]";

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

}  // namespace

int StreamReader::feed(std::string_view bytes) {
  constexpr std::string_view kData = "data: ";
  int tokens = 0;
  for (size_t end; (end = bytes.find('\n')) != bytes.npos; bytes.remove_prefix(end + 1)) {
    std::string_view line = bytes.substr(0, end);
    if (!pending_.empty()) line = pending_.append(line);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    // Every one of these servers puts an event on one line; others are comments, ids, blank.
    if (starts_with(line, kData)) tokens += event(line.substr(kData.size())) ? 1 : 0;
    pending_.clear();
  }
  pending_.append(bytes);
  return tokens;
}

bool StreamReader::event(std::string_view data) {
  const bool done = data == kDone;  // some servers send it after an error too
  if (ended_ && !done) {
    throw std::runtime_error("an event after the last one: " + std::string(data));
  }
  try {
    return api_ == Api::kExecute ? execute_event(data) : openai_event(data);
  } catch (const Json::exception& e) {
    throw std::runtime_error("not the event that was expected: " + std::string(data));
  }
}

bool StreamReader::execute_event(std::string_view data) {
  // Nearly all are tokens: what need not be parsed is not.
  if (!keep_text_ && starts_with(data, R"({"type":"token")")) return true;
  const Json event = Json::parse(data);
  const std::string& type = event.at("type").get_ref<const std::string&>();
  if (type == "token") {
    text_ += event.at("t").get_ref<const std::string&>();
    return true;
  }
  if (type == "started") {
    prompt_tokens_ = event.value("prompt_tokens", 0);
    cached_tokens_ = event.value("cached_tokens", 0);
  } else if (type == "end") {
    tokens_out_ = event.at("tokens_out");
    ended_ = true;
  } else if (type == "error") {
    error_ = event.at("code");
    ended_ = true;
  }
  return false;
}

bool StreamReader::openai_event(std::string_view data) {
  if (data == kDone) {
    ended_ = true;
    return false;
  }
  const Json event = Json::parse(data);
  if (const auto error = event.find("error"); error != event.end()) {
    const auto code = error->find("code");
    error_ = code == error->end() ? "error"
             : code->is_string()  ? code->get<std::string>()
                                  : code->dump();
    ended_ = true;
    return false;
  }
  if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
    prompt_tokens_ = usage->value("prompt_tokens", 0);
    tokens_out_ = usage->value("completion_tokens", 0);
    const auto details = usage->find("prompt_tokens_details");
    if (details != usage->end() && details->is_object()) {
      cached_tokens_ = details->value("cached_tokens", 0);
    }
  }
  const auto choices = event.find("choices");
  if (choices == event.end() || choices->empty()) return false;
  const std::string text = choices->front().value("text", "");
  if (keep_text_) text_ += text;
  return !text.empty();
}

}  // namespace llorch::bench
