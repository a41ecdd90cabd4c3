// A whole file of any bytes: read, or refused by an Error; and what is read lies inside the file.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span content(reinterpret_cast<const std::byte*>(data), size);
  try {
    size_t covered = 8;
    for (const auto& tensor : llorch::parse_safetensors(content, "model.safetensors")) {
      const auto* begin = tensor.bytes.data();
      CHECK(begin >= content.data() && begin + tensor.bytes.size() <= content.data() + size);
      covered += tensor.bytes.size();
    }
    CHECK(covered <= size);
  } catch (const llorch::Error&) {
  }
  return 0;
}
