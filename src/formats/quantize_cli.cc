// For tools/quantize_diff.py: quantize_cli <ggml type id> reads f32 values on stdin and writes
// their blocks on stdout.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "formats/quantize.h"

int main(int argc, char** argv) {
  const auto* type =
      argc == 2 ? llorch::find_ggml_type(static_cast<uint32_t>(std::atoi(argv[1]))) : nullptr;
  if (type == nullptr || !llorch::dtype_of(*type)) {
    std::fputs("usage: quantize_cli <id of a ggml type that is quantised to>\n", stderr);
    return 2;
  }
  std::vector<float> values;
  float buffer[16384];
  for (size_t got; (got = std::fread(buffer, sizeof(float), std::size(buffer), stdin)) > 0;) {
    values.insert(values.end(), buffer, buffer + got);
  }
  const size_t count = values.size() / static_cast<size_t>(type->block_values);
  values.resize(count * static_cast<size_t>(type->block_values));
  std::vector<std::byte> blocks(count * static_cast<size_t>(type->block_bytes));
  llorch::quantize(*type, values, blocks.data());
  return std::fwrite(blocks.data(), 1, blocks.size(), stdout) == blocks.size() ? 0 : 1;
}
