// A model on disk: where its files are and what tensors they hold. Knows no architecture.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/os.h"
#include "formats/gguf.h"
#include "formats/stored_tensor.h"

namespace llorch {

// Immutable once opened; any thread. The mapped files live as long as it does.
class Checkpoint {
 public:
  // `path`: a directory (config.json, tokenizer.json or tokenizer.model, *.safetensors, sharded by
  // index or not), one .safetensors file beside them, a .gguf file (any one of a split set), or a
  // directory that holds one GGUF model and lacks config.json or *.safetensors. Throws
  // Error{kCorruptFile} or Error{kUnsupported} naming file, tensor and reason.
  static Checkpoint open(const std::string& path);

  const std::string& directory() const { return directory_; }
  // What holds the tensors, for messages: the one file, or the folder of several.
  const std::string& path() const { return path_; }
  // Of a GGUF model the metadata (of a set's first file); null for other models. Until describe()
  // is called, such a model has no texts, and its tensors have the names of the file.
  const Gguf* gguf() const { return gguf_ ? &*gguf_ : nullptr; }
  using Tensors = std::map<std::string, StoredTensor, std::less<>>;
  // What folders have in files of their own, and the tensors under the names folders have.
  struct Description {
    std::string config, generation_config, tokenizer_config;
    Tensors tensors;
  };
  void describe(Description description);

  // config.json and what messages call it: its path.
  const std::string& config() const { return config_; }
  const std::string& config_file() const { return config_file_; }
  const std::string& generation_config() const { return generation_config_; }  // may be empty
  // Of a folder one of the two, tokenizer.json where there is one.
  const std::string& tokenizer() const { return tokenizer_; }
  const std::string& sentencepiece() const { return sentencepiece_; }        // tokenizer.model
  const std::string& tokenizer_config() const { return tokenizer_config_; }  // may be empty
  const std::string& chat_template() const { return chat_template_; }  // of a file; may be empty

  // Null if there is none of that name. Valid as long as this Checkpoint lives.
  const StoredTensor* find(std::string_view name) const;
  const Tensors& tensors() const { return tensors_; }
  // The tensor's bytes will be read soon.
  void read_ahead(const StoredTensor& tensor) const;
  // The packed tensor's pages need not stay in memory.
  void drop(const StoredTensor& tensor) const;

 private:
  Checkpoint() = default;
  void open_folder(bool is_directory);
  void read_tokenizer();
  void open_gguf(const std::string& path);
  const os::MappedFile& map_file(const std::string& path);
  const os::MappedFile* file_of(const StoredTensor& tensor) const;  // null: none that is mapped
  void add_tensor(StoredTensor tensor);
  void add_file(const std::string& path);
  void add_indexed_files(const std::string& index);

  std::string directory_, path_;
  std::string config_, config_file_, generation_config_, tokenizer_, sentencepiece_,
      tokenizer_config_, chat_template_;
  std::map<std::string, os::MappedFile> files_;  // by path
  std::optional<Gguf> gguf_;
  Tensors tensors_;
};

}  // namespace llorch
