// A whole file of any bytes: read, or refused by an Error; what is read lies inside the file, every
// getter answers for every key, and every tensor gives as many values as its dims say.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"

namespace {

template <class Getter>
void ask(const Getter& getter) try {
  getter();
} catch (const llorch::Error&) {
}

void ask_all(const llorch::Gguf& gguf, std::string_view key) {
  ask([&] { gguf.integer(key, -1, 1000); });
  ask([&] { gguf.number(key, 0, 1); });
  ask([&] { gguf.boolean(key); });
  ask([&] { gguf.string(key); });
  ask([&] { gguf.strings(key); });
  ask([&] { gguf.integers(key, INT64_MIN, INT64_MAX); });
  ask([&] { gguf.floats(key); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span content(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto gguf = llorch::Gguf::parse(content, "model.gguf");
    for (const std::string_view key : gguf.keys()) {
      ask_all(gguf, key);
    }
    std::vector<std::byte> scratch;
    for (llorch::StoredTensor tensor : gguf.tensors()) {
      const auto* begin = tensor.bytes.data();
      CHECK(begin >= content.data() && begin + tensor.bytes.size() <= content.data() + size);
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
  } catch (const llorch::Error&) {
  }
  return 0;
}
