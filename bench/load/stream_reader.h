// Reads a stream of server-sent events as far as a load generator must: how many tokens came, and
// how it ended. Knows the forms of /execute and of OpenAI's completions.
#pragma once

#include <string>
#include <string_view>

namespace llorch::bench {

enum class Api { kExecute, kOpenAi };

class StreamReader {
 public:
  // `keep_text`: of the tokens, for a conversation's next turn.
  StreamReader(Api api, bool keep_text) : api_(api), keep_text_(keep_text) {}

  // Takes the body's next bytes, cut anywhere; how many events with text they completed.
  // Throws std::runtime_error for what is no such stream.
  int feed(std::string_view bytes);

  // The last event has come: `end`, `error`, or [DONE].
  bool ended() const { return ended_; }
  const std::string& error() const { return error_; }  // its code; empty if it ended well
  const std::string& text() const { return text_; }
  int prompt_tokens() const { return prompt_tokens_; }
  int cached_tokens() const { return cached_tokens_; }
  int tokens_out() const { return tokens_out_; }  // as the server counts them

 private:
  bool event(std::string_view data);
  bool execute_event(std::string_view data);
  bool openai_event(std::string_view data);

  const Api api_;
  const bool keep_text_;
  std::string pending_;  // an unfinished line
  bool ended_ = false;
  std::string error_, text_;
  int prompt_tokens_ = 0, cached_tokens_ = 0, tokens_out_ = 0;
};

}  // namespace llorch::bench
