// What the texts of a model folder would say of a GGUF model: its metadata in Hugging Face's words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "formats/checkpoint.h"

namespace llorch {

// config.json, read from the metadata and from which tensors there are. Throws
// Error{kCorruptFile} or Error{kUnsupported} "file: key: reason", and "unsupported architecture
// 'X'; supported: ...".
std::string gguf_config(const Checkpoint& checkpoint);

// generation_config.json: the ids that end an answer. Those of end of sequence, turn and message
// where the file names them, and its control tokens whose text says as much.
std::string gguf_generation_config(const Gguf& gguf);

// tokenizer_config.json: the texts of special tokens, whether they are added, chat templates.
std::string gguf_tokenizer_config(const Gguf& gguf);

// What the key tokenizer.ggml.`name` says, of a file with `tokens` tokens. None where there is no
// key or all its bits are set, and for a padding id past the tokens, which files do have. Throws
// Error{kCorruptFile} if it is no token's id.
std::optional<int32_t> gguf_token_id(const Gguf& gguf, const char* name, size_t tokens);

}  // namespace llorch
