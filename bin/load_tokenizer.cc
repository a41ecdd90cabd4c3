#include "load_tokenizer.h"

#include <string>
#include <utility>

#include "formats/gguf.h"
#include "model/gguf_config.h"
#include "tokenizer/gguf_vocabulary.h"

namespace llorch {
namespace {

std::string key(const char* name) { return "tokenizer.ggml." + std::string(name); }

// The views point into the file.
GgufVocabulary gguf_vocabulary(const Gguf& gguf) {
  const auto model = gguf.string(key("model"));
  auto tokens = gguf.strings(key("tokens"));
  if (!model || !tokens) {
    gguf.corrupt(key(model ? "tokens" : "model"), "is missing");
  }
  GgufVocabulary vocabulary;
  vocabulary.model = std::string(*model);
  vocabulary.pre = std::string(gguf.string(key("pre")).value_or(""));
  vocabulary.architecture = std::string(gguf.string("general.architecture").value_or(""));
  vocabulary.tokens = std::move(*tokens);
  const size_t count = vocabulary.tokens.size();
  const auto one_each = [&](const char* name, size_t given) {
    if (given != count) {
      gguf.corrupt(key(name), "has " + std::to_string(given) + " entries for " +
                                  std::to_string(count) + " tokens");
    }
  };
  if (auto scores = gguf.floats(key("scores"))) {
    one_each("scores", scores->size());
    vocabulary.scores = std::move(*scores);
  }
  if (const auto types = gguf.integers(key("token_type"), INT32_MIN, INT32_MAX)) {
    one_each("token_type", types->size());
    vocabulary.types.assign(types->begin(), types->end());
  }
  vocabulary.merges = gguf.strings(key("merges")).value_or(std::vector<std::string_view>());
  vocabulary.bos = gguf_token_id(gguf, "bos_token_id", count);
  vocabulary.eos = gguf_token_id(gguf, "eos_token_id", count);
  vocabulary.unk = gguf_token_id(gguf, "unknown_token_id", count);
  vocabulary.add_bos = gguf.boolean(key("add_bos_token"));
  vocabulary.add_eos = gguf.boolean(key("add_eos_token"));
  vocabulary.add_space_prefix = gguf.boolean(key("add_space_prefix"));
  return vocabulary;
}

}  // namespace

Tokenizer load_tokenizer(const Checkpoint& checkpoint) {
  if (const Gguf* gguf = checkpoint.gguf()) {
    return Tokenizer::from_gguf(gguf_vocabulary(*gguf), gguf->file());
  }
  const std::string folder = checkpoint.directory() + "/";
  if (checkpoint.tokenizer().empty()) {
    return Tokenizer::from_sentencepiece(checkpoint.sentencepiece(), checkpoint.tokenizer_config(),
                                         folder + "tokenizer.model");
  }
  return Tokenizer::from_json(checkpoint.tokenizer(), folder + "tokenizer.json");
}

}  // namespace llorch
