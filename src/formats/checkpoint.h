// A model on disk: where its files are and what tensors they hold. Knows no architecture.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "ops/backend.h"

namespace llorch {

// A tensor as stored, its bytes checked to lie inside its file.
struct StoredTensor {
  std::string name;
  std::string file;
  DType type = DType::kF32;
  std::vector<int64_t> dims;
  std::span<const std::byte> bytes;
};

// Immutable once opened; any thread. The mapped files live as long as it does.
class Checkpoint {
 public:
  // `path`: a directory (config.json, tokenizer.json, *.safetensors, sharded by index or not) or one
  // .safetensors file beside them. Throws Error{kCorruptFile} or Error{kUnsupported} naming file,
  // tensor and reason.
  static Checkpoint open(const std::string& path);

  const std::string& directory() const { return directory_; }
  const std::string& config() const { return config_; }                        // config.json
  const std::string& generation_config() const { return generation_config_; }  // may be empty
  const std::string& tokenizer() const { return tokenizer_; }                  // tokenizer.json
  const std::string& tokenizer_config() const { return tokenizer_config_; }    // may be empty

  // Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  // The packed tensor's pages need not stay in memory.
  void drop(const StoredTensor& tensor) const;

 private:
  std::string directory_, config_, generation_config_, tokenizer_, tokenizer_config_;
  std::map<std::string, os::MappedFile> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace llorch
