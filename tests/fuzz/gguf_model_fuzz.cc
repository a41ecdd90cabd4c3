// A GGUF file of any bytes as a model: refused by an Error, or all of its texts parse and every
// tensor gives as many values as its dims say.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/json_reader.h"
#include "model/model_config.h"
#include "model/open_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // One file for each process: the search may run several.
  static const std::string path = (std::filesystem::temp_directory_path() /
                                   ("gguf_model_fuzz-" + std::to_string(getpid()) + ".gguf"))
                                      .string();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    const auto checkpoint = llorch::open_model(path);
    llorch::JsonReader::parse(checkpoint.tokenizer_config(), "tokenizer_config");
    llorch::JsonReader::parse(checkpoint.generation_config(), "generation_config");
    std::vector<std::byte> scratch;
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      if (!tensor.type) continue;
      size_t count = 1;
      for (const int64_t dim : tensor.dims) {
        count *= static_cast<size_t>(dim);
      }
      CHECK(tensor.read(&scratch).size() == count * llorch::size_bytes(*tensor.type));
      if (tensor.block_type()) {
        CHECK(tensor.read_blocks(&scratch).size() == tensor.bytes.size());
      }
    }
    llorch::parse_model_config(checkpoint.config(), checkpoint.generation_config(), path);
  } catch (const llorch::Error&) {
  }
  std::filesystem::remove(path);
  return 0;
}
