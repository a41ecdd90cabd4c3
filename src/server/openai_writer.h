// A request's events in OpenAI's shapes: text completions and chat completions, each as a stream of
// chunks or as one answer. Knows no sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/event_writer.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

struct CompletionFacts {
  bool chat = false;
  std::string id, model, fingerprint;
  int64_t created = 0;  // Unix seconds
  std::string echo;     // text that goes before the completion's
  bool logprobs = false;
  bool include_usage = false;            // of a stream; an answer in one piece has it always
  const Tokenizer* tokenizer = nullptr;  // outlives the writer
};

// `data: {…}\n\n` for each chunk, `data: [DONE]\n\n` at the end; a failure is a chunk with an
// error.
std::unique_ptr<EventWriter> chunk_writer(CompletionFacts facts);
// One JSON object, or OpenAI's error with its status.
std::unique_ptr<EventWriter> whole_writer(CompletionFacts facts);

// GET /v1/models and /v1/models/{id}.
std::string model_json(const std::string& name, int64_t created);
std::string model_list_json(const std::string& name, int64_t created);

}  // namespace llorch
