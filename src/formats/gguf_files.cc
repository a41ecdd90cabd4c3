#include "formats/gguf_files.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>
#include <system_error>

namespace llorch {
namespace {

constexpr size_t kDigits = 5;
constexpr char kOf[] = "-of-";
constexpr char kEnd[] = ".gguf";

// Five digits at `at`; none if they are not.
std::optional<int> number_at(const std::string& text, size_t at) {
  int number = 0;
  for (size_t i = 0; i < kDigits; ++i) {
    if (text[at + i] < '0' || text[at + i] > '9') {
      return std::nullopt;
    }
    number = number * 10 + (text[at + i] - '0');
  }
  return number;
}

}  // namespace

std::string GgufShardName::path(int shard) const {
  char tail[40];
  std::snprintf(tail, sizeof tail, "-%05d-of-%05d.gguf", shard, count);
  return prefix + tail;
}

std::optional<GgufShardName> parse_gguf_shard_name(const std::string& path) {
  constexpr size_t kTail = 1 + kDigits + sizeof kOf - 1 + kDigits + sizeof kEnd - 1;
  if (path.size() < kTail) {
    return std::nullopt;
  }
  const size_t dash = path.size() - kTail, of = dash + 1 + kDigits, end = of + 4 + kDigits;
  if (path[dash] != '-' || path.compare(of, sizeof kOf - 1, kOf) != 0 ||
      path.compare(end, sizeof kEnd - 1, kEnd) != 0) {
    return std::nullopt;
  }
  const auto number = number_at(path, dash + 1), count = number_at(path, of + sizeof kOf - 1);
  if (!number || !count || *number < 1 || *number > *count) {
    return std::nullopt;
  }
  return GgufShardName{path.substr(0, dash), *number, *count};
}

std::vector<std::string> gguf_models_in(const std::string& directory) {
  std::set<std::string> models;
  std::error_code error;
  namespace fs = std::filesystem;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == kEnd) {
      const std::string path = it->path().string();
      const auto shard = parse_gguf_shard_name(path);
      models.insert(shard ? shard->path(1) : path);
    }
  }
  return {models.begin(), models.end()};
}

}  // namespace llorch
