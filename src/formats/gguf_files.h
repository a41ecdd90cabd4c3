// Which files a GGUF model is made of: one, or a set "name-00001-of-00003.gguf". Knows no content.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace llorch {

// A file's place in a set, as its name says it.
struct GgufShardName {
  std::string prefix;  // the path before "-00001-of-00003.gguf"
  int number = 0, count = 0;

  std::string path(int shard) const;  // of shard 1 to `count`
};
std::optional<GgufShardName> parse_gguf_shard_name(const std::string& path);

// The .gguf files of a folder, by name, of a set its first name only.
std::vector<std::string> gguf_models_in(const std::string& directory);

}  // namespace llorch
