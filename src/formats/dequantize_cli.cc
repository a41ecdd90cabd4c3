// For tools/dequantize_diff.py: dequantize_cli <ggml type id> reads blocks on stdin and writes
// their f32 values on stdout.
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "formats/quant.h"

int main(int argc, char** argv) {
  const auto* type =
      argc == 2 ? llorch::find_ggml_type(static_cast<uint32_t>(std::atoi(argv[1]))) : nullptr;
  if (type == nullptr || type->decode == nullptr) {
    std::fputs("usage: dequantize_cli <id of a readable ggml type>\n", stderr);
    return 2;
  }
  std::vector<std::byte> blocks;
  std::byte buffer[65536];
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    blocks.insert(blocks.end(), buffer, buffer + got);
  }
  const size_t count = blocks.size() / static_cast<size_t>(type->block_bytes);
  blocks.resize(count * static_cast<size_t>(type->block_bytes));
  std::vector<float> values(count * static_cast<size_t>(type->block_values));
  llorch::dequantize(*type, blocks, values.data());
  return std::fwrite(values.data(), sizeof(float), values.size(), stdout) == values.size() ? 0 : 1;
}
