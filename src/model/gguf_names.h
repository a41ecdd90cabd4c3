// What the tensors of a GGUF file are called and how they are laid out, against what weights.cc
// asks for.
#pragma once

#include <string>

#include "formats/checkpoint.h"
#include "formats/gguf.h"

namespace llorch {

// An architecture as GGUF files name it.
struct GgufArchitecture {
  const char* name;        // general.architecture
  const char* model_type;  // of config.json
  bool paired_heads;       // q's and k's rows are in the order of interleaved rope
  bool norms_plus_1;       // norms are stored as they are applied, not less 1
};

// Throws Error{kUnsupported} "unsupported architecture 'X'; supported: ...".
const GgufArchitecture& gguf_architecture(const Gguf& gguf);

// The checkpoint's tensors (as Checkpoint::open gives them) under Hugging Face's names, in its
// order of rows and values. Throws Error{kCorruptFile} or Error{kUnsupported} "file: tensor:
// reason" for a tensor that the architecture has not got, or one that is not cut as it must be.
Checkpoint::Tensors hugging_face_tensors(const Checkpoint& checkpoint);

// What the file would call it, for messages; `name` itself if that is not known.
std::string gguf_tensor_name(const Gguf& gguf, const std::string& name);

}  // namespace llorch
