#include "formats/quant.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/os.h"
#include "formats/safetensors.h"

namespace llorch {
namespace {

// tools/dequantize_diff.py wrote what the gguf package gives: "<type id>.blocks" and ".values".
TEST(Quant, GivesTheReferenceValuesBitForBit) {
  const std::string path = "tests/golden/quant.safetensors";
  const os::MappedFile file(path);
  const auto tensors = parse_safetensors(file.bytes(), path);
  const auto bytes_of = [&](const std::string& name) {
    for (const StoredTensor& tensor : tensors) {
      if (tensor.name == name) return tensor.bytes;
    }
    return std::span<const std::byte>();
  };
  int compared = 0;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlType* type = find_ggml_type(id);
    if (type == nullptr || type->decode == nullptr) continue;
    const auto blocks = bytes_of(std::to_string(id) + ".blocks");
    const auto values = bytes_of(std::to_string(id) + ".values");
    ASSERT_FALSE(blocks.empty()) << type->name;
    std::vector<float> want(values.size() / sizeof(float)), got(want.size());
    std::memcpy(want.data(), values.data(), values.size());
    ASSERT_EQ(blocks.size() / static_cast<size_t>(type->block_bytes) *
                  static_cast<size_t>(type->block_values),
              want.size());
    dequantize(*type, blocks, got.data());
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::isnan(want[i])) {
        EXPECT_TRUE(std::isnan(got[i])) << type->name << " " << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
            << type->name << " " << i << ": " << got[i] << ", want " << want[i];
      }
    }
    ++compared;
  }
  EXPECT_EQ(compared, 16);
}

TEST(Quant, KnowsTypesItCannotRead) {
  EXPECT_EQ(std::string(find_ggml_type(16)->name), "IQ2_XXS");
  EXPECT_EQ(find_ggml_type(16)->decode, nullptr);
  EXPECT_EQ(find_ggml_type(4), nullptr);
  EXPECT_EQ(readable_ggml_types(),
            "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, "
            "IQ4_XS, MXFP4");
}

}  // namespace
}  // namespace llorch
