#include "model/open_model.h"

#include "model/gguf_config.h"
#include "model/gguf_names.h"

namespace llorch {

Checkpoint open_model(const std::string& path) {
  Checkpoint checkpoint = Checkpoint::open(path);
  if (const Gguf* gguf = checkpoint.gguf()) {
    checkpoint.describe({.config = gguf_config(checkpoint),
                         .generation_config = gguf_generation_config(*gguf),
                         .tokenizer_config = gguf_tokenizer_config(*gguf),
                         .tensors = hugging_face_tensors(checkpoint)});
  }
  return checkpoint;
}

}  // namespace llorch
