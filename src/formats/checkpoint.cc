#include "formats/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/file_error.h"
#include "formats/gguf_files.h"
#include "formats/json_reader.h"
#include "formats/safetensors.h"

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
  const bool is_gguf = !is_directory && ends_with(path, ".gguf");
  if (!is_directory && !is_gguf && !ends_with(path, ".safetensors")) {
    throw_unsupported(path, "", "is neither a directory nor a .safetensors or .gguf file");
  }
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  checkpoint.directory_ = is_directory ? path : fs::path(path).parent_path().string();
  if (checkpoint.directory_.empty()) {
    checkpoint.directory_ = ".";
  }
  if (is_gguf) {
    checkpoint.open_gguf(path);
    return checkpoint;
  }
  if (is_directory && (!exists(join(path, "config.json")) || safetensors_in(path).empty())) {
    const auto models = gguf_models_in(path);
    if (models.size() > 1) {
      throw_corrupt(
          path, "",
          "holds " + std::to_string(models.size()) + " GGUF models; name one of the files");
    }
    if (models.size() == 1) {
      checkpoint.open_gguf(models.front());
      return checkpoint;
    }
  }
  checkpoint.open_folder(is_directory);
  return checkpoint;
}

void Checkpoint::open_folder(bool is_directory) {
  config_file_ = join(directory_, "config.json");
  config_ = read_required(config_file_, kMaxConfigBytes);
  generation_config_ = read_optional(join(directory_, "generation_config.json"), kMaxConfigBytes);
  read_tokenizer();
  tokenizer_config_ = read_optional(join(directory_, "tokenizer_config.json"), kMaxConfigBytes);
  chat_template_ = read_optional(join(directory_, "chat_template.jinja"), kMaxConfigBytes);

  const std::string single = is_directory ? join(directory_, "model.safetensors") : path_;
  const std::string index = join(directory_, "model.safetensors.index.json");
  if (exists(single)) {
    path_ = single;
    add_file(single);
  } else if (exists(index)) {
    add_indexed_files(index);
  } else {
    const auto files = safetensors_in(directory_);
    if (files.empty() || files.size() > kMaxFiles) {
      throw_corrupt(directory_, "",
                    "holds " + std::to_string(files.size()) +
                        " .safetensors files; it must be 1 to " + std::to_string(kMaxFiles));
    }
    for (const std::string& file : files) {
      add_file(file);
    }
  }
}

// tokenizer.json says more than tokenizer.model, which is what it was made from.
void Checkpoint::read_tokenizer() {
  const std::string json = join(directory_, "tokenizer.json");
  const std::string model = join(directory_, "tokenizer.model");
  if (exists(json)) {
    tokenizer_ = read_required(json, kMaxTokenizerBytes);
  } else if (exists(model)) {
    sentencepiece_ = read_required(model, kMaxTokenizerBytes);
  } else {
    throw_corrupt(directory_, "", "holds neither tokenizer.json nor tokenizer.model");
  }
}

void Checkpoint::open_gguf(const std::string& path) {
  constexpr char kNumber[] = "split.no", kCount[] = "split.count";
  constexpr int64_t kMostShards = kMaxFiles;
  Gguf named = Gguf::parse(map_file(path).bytes(), path);
  const auto count = named.integer(kCount, 0, kMostShards).value_or(1);
  const auto set = parse_gguf_shard_name(path);
  if (count > 1 && (!set || set->count != count)) {
    named.corrupt(kCount, "is " + std::to_string(count) + ", but the file's name does not end in " +
                              GgufShardName{"", 1, static_cast<int>(count)}.path(1));
  }
  path_ = count > 1 ? set->path(1) : path;
  config_file_ = path_;
  for (int i = 1; i <= std::max<int64_t>(count, 1); ++i) {
    const std::string shard_path = count > 1 ? set->path(i) : path;
    if (!exists(shard_path)) {
      named.corrupt(kCount, "is " + std::to_string(count) + ", but " +
                                printable(fs::path(shard_path).filename().string()) +
                                " is not there");
    }
    Gguf shard = Gguf::parse(map_file(shard_path).bytes(), shard_path);
    if (count > 1 && shard.integer(kCount, 0, kMostShards) != count) {
      shard.corrupt(kCount, "is not " + std::to_string(count) + ", as in " + printable(path));
    }
    if (count > 1 && shard.integer(kNumber, 0, kMostShards) != i - 1) {
      shard.corrupt(kNumber, "is not " + std::to_string(i - 1) + ", as the file's name says");
    }
    for (const StoredTensor& tensor : shard.tensors()) {
      add_tensor(tensor);
    }
    if (i == 1) {
      gguf_ = std::move(shard);
    }
  }
  const auto total = gguf_->integer("split.tensors.count", 0, INT64_MAX);
  if (count > 1 && total && *total != static_cast<int64_t>(tensors_.size())) {
    gguf_->corrupt("split.tensors.count", "is " + std::to_string(*total) + ", but the files hold " +
                                              std::to_string(tensors_.size()) + " tensors");
  }
}

void Checkpoint::describe(Description description) {
  config_ = std::move(description.config);
  generation_config_ = std::move(description.generation_config);
  tokenizer_config_ = std::move(description.tokenizer_config);
  tensors_ = std::move(description.tensors);
}

const os::MappedFile& Checkpoint::map_file(const std::string& path) {
  check_regular(path);
  return files_.try_emplace(path, path).first->second;
}

void Checkpoint::add_tensor(StoredTensor tensor) {
  const auto known = tensors_.find(tensor.name);
  if (known != tensors_.end()) {
    throw_corrupt(tensor.file, tensor.name, "is also in " + printable(known->second.file));
  }
  std::string name = tensor.name;
  tensors_.emplace(std::move(name), std::move(tensor));
}

void Checkpoint::add_file(const std::string& path) {
  for (StoredTensor& tensor : parse_safetensors(map_file(path).bytes(), path)) {
    add_tensor(std::move(tensor));
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

const os::MappedFile* Checkpoint::file_of(const StoredTensor& tensor) const {
  const auto found = files_.find(tensor.file);
  return found == files_.end() ? nullptr : &found->second;
}

void Checkpoint::read_ahead(const StoredTensor& tensor) const {
  if (const os::MappedFile* file = file_of(tensor)) file->read_ahead(tensor.bytes);
}

void Checkpoint::drop(const StoredTensor& tensor) const {
  if (const os::MappedFile* file = file_of(tensor)) file->drop(tensor.bytes);
}

}  // namespace llorch
