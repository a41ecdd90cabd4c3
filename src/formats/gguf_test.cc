#include "formats/gguf.h"

#include <cmath>
#include <cstring>

#include "formats/gguf_testing.h"
#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::f32;
using testing::gguf_array;
using testing::gguf_string;
using testing::GgufFile;
using testing::GgufType;
using testing::little;
using testing::u32;
using testing::u64;

constexpr uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ8_0 = 8, kIq1S = 19;

Gguf parse(const std::string& file) {
  return Gguf::parse(std::as_bytes(std::span(file)), "m.gguf");
}

void expect_corrupt(const std::string& file, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kCorruptFile, parts, [&] { parse(file); });
}

void expect_unsupported(const std::string& file, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kUnsupported, parts, [&] { parse(file); });
}

TEST(Gguf, GivesMetadataAndTensors) {
  for (const uint32_t version : {2u, 3u}) {
    GgufFile made;
    made.version = version;
    made.text("general.architecture", "llama")
        .number("a.count", 7)
        .real("a.base", 0.5F)
        .boolean("a.yes", true)
        .texts("tokens", {"<s>", "", "x y"})
        .value("scores", GgufType::kArray, gguf_array(GgufType::kF32, 2, f32(-1) + f32(2)))
        .value("types", GgufType::kArray, gguf_array(GgufType::kI32, 2, u32(3) + u32(~0u)))
        .value("flags", GgufType::kArray, gguf_array(GgufType::kBool, 2, little(1, 1) + '\0'))
        .tensor("w", {2, 3}, kF16, "abcdefghijkl")
        .tensor("q", {32, 1}, kQ4_0, std::string(18, 'q'));
    const std::string file = made.build();
    const Gguf gguf = parse(file);
    EXPECT_EQ(gguf.string("general.architecture"), "llama");
    EXPECT_EQ(gguf.integer("a.count", 0, 10), 7);
    EXPECT_EQ(gguf.number("a.base", 0, 1), 0.5);
    EXPECT_EQ(gguf.number("a.count", 0, 10), 7.0);
    EXPECT_EQ(gguf.boolean("a.yes"), true);
    EXPECT_EQ(*gguf.strings("tokens"), (std::vector<std::string_view>{"<s>", "", "x y"}));
    EXPECT_EQ(*gguf.floats("scores"), (std::vector<float>{-1, 2}));
    EXPECT_EQ(*gguf.integers("types", -5, 5), (std::vector<int64_t>{3, -1}));
    EXPECT_EQ(*gguf.integers("flags", 0, 1), (std::vector<int64_t>{1, 0}));
    EXPECT_TRUE(gguf.is_array("types"));
    EXPECT_FALSE(gguf.integer("none", 0, 1) || gguf.string("none") || gguf.strings("none") ||
                 gguf.boolean("none") || gguf.is_array("none") || gguf.floats("none"));
    ASSERT_EQ(gguf.tensors().size(), 2u);
    const StoredTensor& w = gguf.tensors()[0];
    EXPECT_EQ(w.name, "w");
    EXPECT_EQ(w.file, "m.gguf");
    EXPECT_EQ(w.dtype, "F16");
    EXPECT_EQ(w.type, DType::kF16);
    EXPECT_EQ(w.dims, (std::vector<int64_t>{3, 2}));
    EXPECT_EQ(std::memcmp(w.bytes.data(), "abcdefghijkl", 12), 0);
    EXPECT_EQ(gguf.tensors()[1].dtype, "Q4_0");
    EXPECT_EQ(gguf.tensors()[1].bytes.size(), 18u);
  }
}

TEST(Gguf, TakesTheAlignmentOfTheFile) {
  GgufFile made;
  made.alignment = 4;
  made.number("general.alignment", 4).tensor("a", {1}, kF32, f32(1)).tensor("b", {1}, kF32, f32(2));
  const std::string file = made.build();
  EXPECT_EQ(std::memcmp(parse(file).tensors()[1].bytes.data(), f32(2).data(), 4), 0);
  for (const uint32_t bad : {0u, 3u, 48u}) {
    expect_corrupt(GgufFile().number("general.alignment", bad).build(), {"general.alignment: "});
  }
  expect_corrupt(GgufFile().text("general.alignment", "32").build(),
                 {"m.gguf: general.alignment: must be an integer", "got string"});
}

TEST(Gguf, RefusesOtherFilesAndVersions) {
  expect_corrupt("", {"m.gguf: does not begin with GGUF"});
  expect_corrupt("GGU", {"does not begin with GGUF"});
  expect_corrupt("GGML" + std::string(40, '\0'), {"does not begin with GGUF"});
  expect_corrupt("GGUF" + u32(3), {"m.gguf: header: needs 8 bytes, but only 0"});
  GgufFile made;
  for (const uint32_t version : {1u, 4u, 1000u}) {
    made.version = version;
    expect_unsupported(made.build(), {"GGUF version " + std::to_string(version), "2, 3"});
  }
  made.version = 3u << 24;
  expect_unsupported(made.build(), {"big-endian"});
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string file = GgufFile()
                               .text("general.architecture", "llama")
                               .texts("tokens", {"a", "b"})
                               .tensor("w", {2, 2}, kF32, std::string(16, 'w'))
                               .build();
  parse(file);
  for (size_t length = 0; length < file.size() - 16; ++length) {
    EXPECT_THROW(parse(file.substr(0, length)), Error) << length;
  }
}

TEST(Gguf, RefusesLyingCounts) {
  GgufFile made;
  made.number("a", 1);
  for (const int64_t count : {int64_t{2}, int64_t{1} << 40, INT64_MAX}) {
    made.value_count = count;
    expect_corrupt(made.build(), {"key 1 of " + std::to_string(count), "bytes"});
  }
  made.value_count = -1;
  made.tensor_count = int64_t{1} << 40;
  expect_corrupt(made.build(), {"tensor 0 of 1099511627776"});
  expect_corrupt(GgufFile().value("a", GgufType::kString, u64(~0ull) + "abc").build(),
                 {"m.gguf: a: needs 18446744073709551615 bytes, but only 3 are left"});
  for (const GgufType type : {GgufType::kU8, GgufType::kF64, GgufType::kString, GgufType::kArray}) {
    for (const uint64_t count : {uint64_t{9}, uint64_t{1} << 61, ~uint64_t{0}}) {
      expect_corrupt(
          GgufFile()
              .value("a", GgufType::kArray, gguf_array(type, count, std::string(8, '\0')))
              .build(),
          {"m.gguf: a: ", "left"});
    }
  }
}

TEST(Gguf, RefusesBadKeys) {
  expect_corrupt(GgufFile().number("a", 1).number("a", 1).build(), {"m.gguf: a: is listed twice"});
  expect_corrupt(GgufFile().number("", 1).build(), {"key 0 of 1: its name has 0 bytes"});
  expect_corrupt(GgufFile().number(std::string(65536, 'k'), 1).build(), {"65536 bytes"});
  expect_corrupt(GgufFile().value("a", static_cast<GgufType>(13), u32(0)).build(),
                 {"m.gguf: a: has the unknown type 13"});
  expect_corrupt(
      GgufFile().value("a", GgufType::kArray, gguf_array(static_cast<GgufType>(99), 0, "")).build(),
      {"a: has the unknown type 99"});
}

TEST(Gguf, LimitsTheDepthOfArrays) {
  const auto nested = [](int depth) {
    std::string array = gguf_array(GgufType::kU8, 1, "x");
    for (int i = 1; i < depth; ++i) {
      array = gguf_array(GgufType::kArray, 1, array);
    }
    return GgufFile().value("a", GgufType::kArray, array).build();
  };
  const std::string file = nested(4);
  expect_error(ErrorCode::kCorruptFile, {"a: must be an array of strings; got an array of array"},
               [&] { parse(file).strings("a"); });
  expect_error(ErrorCode::kCorruptFile, {"a: must be an array of integers; got an array of array"},
               [&] { parse(file).integers("a", 0, 1); });
  expect_corrupt(nested(5), {"m.gguf: a: arrays nested deeper than 4"});
  expect_corrupt(nested(3000), {"nested deeper than 4"});
}

TEST(Gguf, NamesTheKeyOfAnotherTypeOrRange) {
  const std::string file =
      GgufFile()
          .text("s", "x")
          .number("n", 300)
          .real("nan", NAN)
          .value("big", GgufType::kU64, u64(~0ull))
          .value("minus", GgufType::kI8, little(0xFF, 1))
          .value("bool", GgufType::kBool, little(2, 1))
          .value("list", GgufType::kArray, gguf_array(GgufType::kU16, 1, little(9, 2)))
          .build();
  const Gguf g = parse(file);
  const auto corrupt = [](const std::vector<std::string>& parts, const auto& action) {
    expect_error(ErrorCode::kCorruptFile, parts, action);
  };
  corrupt({"m.gguf: s: must be an integer from 0 to 9; got string"}, [&] { g.integer("s", 0, 9); });
  corrupt({"n: must be an integer from 0 to 9; got 300"}, [&] { g.integer("n", 0, 9); });
  corrupt({"big: must be an integer", "got 18446744073709551615"},
          [&] { g.integer("big", 0, INT64_MAX); });
  corrupt({"minus: must be an integer from 0", "got -1"}, [&] { g.integer("minus", 0, 9); });
  corrupt({"nan: must be a number"}, [&] { g.number("nan", 0, 9); });
  corrupt({"s: must be a number; got string"}, [&] { g.number("s", 0, 9); });
  corrupt({"bool: must be true or false; got the byte 2"}, [&] { g.boolean("bool"); });
  corrupt({"n: must be true or false; got uint32"}, [&] { g.boolean("n"); });
  corrupt({"n: must be a string; got uint32"}, [&] { g.string("n"); });
  corrupt({"list: must be a string; got an array of uint16"}, [&] { g.string("list"); });
  corrupt({"n: must be an array of strings; got uint32"}, [&] { g.strings("n"); });
  corrupt({"list: must be an array of float32; got an array of uint16"}, [&] { g.floats("list"); });
  corrupt({"list: element 0 must be from 0 to 8"}, [&] { g.integers("list", 0, 8); });
}

TEST(Gguf, RefusesLyingTensors) {
  const auto entry = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset,
                        size_t bytes = 64) {
    GgufFile made;
    made.entry("t", dims, type, offset).data = std::string(bytes, 'd');
    return made.build();
  };
  parse(entry({16}, kF32, 0));
  parse(entry({8}, kF32, 32));
  parse(entry({}, kF32, 0));
  parse(entry({0, 4}, kF32, 64));
  expect_corrupt(entry({17}, kF32, 0), {"m.gguf: t: has 68 bytes at 0 of 64 bytes of data"});
  expect_corrupt(entry({1}, kF32, 64), {"t: has 4 bytes at 64 of 64"});
  expect_corrupt(entry({1}, kF32, ~uint64_t{31}), {"t: has 4 bytes at 18446744073709551584"});
  expect_corrupt(entry({1}, kF32, 8), {"t: its offset 8 is not a multiple of 32"});
  expect_corrupt(entry({1, 1, 1, 1, 1}, kF32, 0), {"t: has 5 dimensions; at most 4"});
  expect_corrupt(entry({1ull << 40, 1ull << 40}, kF32, 0), {"t: has more elements than a file"});
  expect_corrupt(entry({~uint64_t{0}}, kF32, 0), {"t: has a dimension of 18446744073709551615"});
  expect_corrupt(entry({33}, kQ8_0, 0), {"t: its rows of 33 are not whole blocks of 32 Q8_0"});
  expect_corrupt(entry({}, kQ8_0, 0), {"t: its rows of 1 are not whole blocks"});
  expect_unsupported(entry({1}, 99, 0), {"m.gguf: t: type 99 is unknown; supported: F32, F16"});
  expect_corrupt(GgufFile().tensor("t", {1}, kF32, "abcd").tensor("t", {1}, kF32, "abcd").build(),
                 {"t: is listed twice"});
  expect_corrupt(GgufFile().tensor("", {1}, kF32, "abcd").build(), {"tensor 0 of 1: its name"});
  GgufFile overlapping;
  overlapping.entry("a", {16}, kF32, 0).entry("b", {8}, kF32, 32).data = std::string(64, 'd');
  expect_corrupt(overlapping.build(), {"m.gguf: b: overlaps tensor a"});
}

TEST(Gguf, ListsTypesItCannotReadWithoutAType) {
  const std::string file = GgufFile().tensor("t", {256}, kIq1S, std::string(50, 'd')).build();
  EXPECT_EQ(parse(file).tensors()[0].dtype, "IQ1_S");
  EXPECT_FALSE(parse(file).tensors()[0].type);
}

TEST(Gguf, RefusesBlocksOfAnOlderLayout) {
  const auto with = [](uint32_t type, size_t bytes) {
    return GgufFile()
        .number("general.quantization_version", 1)
        .tensor("t", {32}, type, std::string(bytes, 'd'))
        .build();
  };
  parse(with(kF32, 128));
  expect_unsupported(with(kQ8_0, 34), {"general.quantization_version: 1 is not supported"});
}

// Two heads of four rows; a row is one block of one value.
TEST(StoredTensor, ReadsRowsInTheOrderOfTheCheckpoint) {
  std::string data;
  for (const float value : {0.F, 2.F, 1.F, 3.F, 4.F, 6.F, 5.F, 7.F}) {
    data += f32(value);
  }
  const std::string file = GgufFile().tensor("q", {1, 8}, kF32, data).build();
  StoredTensor tensor = parse(file).tensors()[0];
  std::vector<std::byte> scratch;
  EXPECT_EQ(tensor.read(&scratch).data(), tensor.bytes.data());
  tensor.paired_heads = 2;
  const auto values = tensor.read(&scratch);
  std::vector<float> got(8);
  ASSERT_EQ(values.size(), 32u);
  std::memcpy(got.data(), values.data(), 32);
  EXPECT_EQ(got, (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
  for (size_t row = 0; row < 8; ++row) {
    float value = -1;
    tensor.read_row(row, {&value, 1});
    EXPECT_EQ(value, got[row]);
  }
}

TEST(StoredTensor, DecodesAndShifts) {
  const std::string block = little(0x3C00, 2) + std::string(32, '\x05');  // 1.0 times 5
  const std::string file = GgufFile().tensor("q", {64}, kQ8_0, block + block).build();
  StoredTensor tensor = parse(file).tensors()[0];
  tensor.shift = -1;
  std::vector<std::byte> scratch;
  const auto values = tensor.read(&scratch);
  std::vector<float> got(64);
  ASSERT_EQ(values.size(), 256u);
  std::memcpy(got.data(), values.data(), 256);
  EXPECT_EQ(got, std::vector<float>(64, 4));
}

}  // namespace
}  // namespace llorch
