#include "formats/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/file_error.h"
#include "formats/json_reader.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxFiles = 4096;

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::string join(const std::string& directory, const std::string& name) {
  return (fs::path(directory) / name).string();
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// Opening a pipe or a device could wait for ever.
void check_regular(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    throw_corrupt(path, "", exists(path) ? "is not a regular file" : "no such file");
  }
}

std::string read_text(const std::string& path, size_t most) {
  check_regular(path);
  const os::MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > most) {
    throw_corrupt(path, "",
                  "has " + std::to_string(bytes.size()) + " bytes; at most " +
                      std::to_string(most) + " are allowed");
  }
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string read_required(const std::string& path, size_t most) {
  std::string text = read_text(path, most);
  if (text.empty()) {
    throw_corrupt(path, "", "is empty");
  }
  return text;
}

std::string read_optional(const std::string& path, size_t most) {
  return exists(path) ? read_text(path, most) : std::string();
}

// Every *.safetensors of a directory, by name.
std::vector<std::string> safetensors_in(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") {
      files.push_back(it->path().string());
    }
  }
  if (error) {
    throw_corrupt(directory, "", "cannot be read: " + error.message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A shard is a plain file name: a path could lead out of the model's directory.
void check_shard_name(const JsonReader& map, const std::string& tensor, const std::string& shard) {
  const bool plain = std::none_of(shard.begin(), shard.end(), [](char c) {
    return c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < 0x20;
  });
  if (!plain || shard.front() == '.' || !ends_with(shard, ".safetensors")) {
    map.corrupt(tensor, "shard '" + printable(shard) + "' is not the name of a .safetensors file");
  }
}

}  // namespace

Checkpoint Checkpoint::open(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw_corrupt(path, "",
                  error && status.type() != fs::file_type::not_found
                      ? "cannot be read: " + error.message()
                      : "no such file or directory");
  }
  const bool is_directory = fs::is_directory(status);
  if (!is_directory && ends_with(path, ".gguf")) {
    throw_unsupported(path, "", "GGUF files are not supported yet; supported: safetensors");
  }
  if (!is_directory && !ends_with(path, ".safetensors")) {
    throw_unsupported(path, "", "is neither a directory nor a .safetensors file");
  }
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  checkpoint.directory_ = is_directory ? path : fs::path(path).parent_path().string();
  if (checkpoint.directory_.empty()) {
    checkpoint.directory_ = ".";
  }
  const std::string& directory = checkpoint.directory_;
  checkpoint.config_file_ = join(directory, "config.json");
  checkpoint.config_ = read_required(checkpoint.config_file_, kMaxConfigBytes);
  checkpoint.generation_config_ =
      read_optional(join(directory, "generation_config.json"), kMaxConfigBytes);
  checkpoint.tokenizer_ = read_required(join(directory, "tokenizer.json"), kMaxTokenizerBytes);
  checkpoint.tokenizer_config_ =
      read_optional(join(directory, "tokenizer_config.json"), kMaxConfigBytes);

  const std::string single = is_directory ? join(directory, "model.safetensors") : path;
  const std::string index = join(directory, "model.safetensors.index.json");
  if (exists(single)) {
    checkpoint.path_ = single;
    checkpoint.add_file(single);
  } else if (exists(index)) {
    checkpoint.add_indexed_files(index);
  } else {
    const auto files = safetensors_in(directory);
    if (files.empty() || files.size() > kMaxFiles) {
      throw_corrupt(directory, "",
                    "holds " + std::to_string(files.size()) +
                        " .safetensors files; it must be 1 to " + std::to_string(kMaxFiles));
    }
    for (const std::string& file : files) {
      checkpoint.add_file(file);
    }
  }
  return checkpoint;
}

void Checkpoint::add_file(const std::string& path) {
  check_regular(path);
  const auto [file, added] = files_.try_emplace(path, path);
  for (StoredTensor& tensor : parse_safetensors(file->second.bytes(), path)) {
    const auto known = tensors_.find(tensor.name);
    if (known != tensors_.end()) {
      throw_corrupt(path, tensor.name, "is also in " + printable(known->second.file));
    }
    std::string name = tensor.name;
    tensors_.emplace(std::move(name), std::move(tensor));
  }
}

void Checkpoint::add_indexed_files(const std::string& index) {
  const auto map =
      JsonReader::parse(read_required(index, kMaxIndexBytes), index).object("weight_map");
  if (!map) {
    throw_corrupt(index, "weight_map", "is missing");
  }
  std::map<std::string, std::string> shard_of;  // by tensor
  for (const std::string& tensor : map->keys()) {
    const auto shard = map->string(tensor);
    if (!shard || shard->empty()) {
      map->corrupt(tensor, "names no shard");
    }
    check_shard_name(*map, tensor, *shard);
    const std::string path = join(directory_, *shard);
    if (!files_.contains(path)) {
      if (files_.size() == kMaxFiles) {
        throw_corrupt(index, "", "names more than " + std::to_string(kMaxFiles) + " shards");
      }
      if (!exists(path)) {
        map->corrupt(tensor, "its shard '" + printable(*shard) + "' is not there");
      }
      add_file(path);
    }
    shard_of.emplace(tensor, path);
  }
  for (const auto& [tensor, path] : shard_of) {
    const StoredTensor* found = find(tensor);
    if (found == nullptr || found->file != path) {
      throw_corrupt(path, tensor, "is not in this shard, though " + printable(index) + " says so");
    }
  }
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

void Checkpoint::drop(const StoredTensor& tensor) const {
  const auto file = files_.find(tensor.file);
  if (file != files_.end()) {
    file->second.drop(tensor.bytes);
  }
}

}  // namespace llorch
