#include "formats/safetensors.h"

#include <span>

#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::safetensors;

std::vector<StoredTensor> parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

void expect_corrupt(const std::string& file, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kCorruptFile, parts, [&] { parse(file); });
}

// One tensor named "t" with this entry, before `bytes` bytes of data.
std::string one(const std::string& entry, size_t bytes) {
  return safetensors("{\"t\":" + entry + "}", std::string(bytes, '\0'));
}

TEST(Safetensors, GivesEveryTensorWithItsBytes) {
  // Padded by spaces and with metadata, as the safetensors library writes it.
  const std::string file =
      safetensors(R"({"__metadata__":{"format":"pt"},)"
                  R"("b":{"dtype":"BF16","shape":[1,2],"data_offsets":[4,8]},)"
                  R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                  R"("e":{"dtype":"F16","shape":[0,7],"data_offsets":[8,8]}}   )",
                  "\x01\x02\x03\x04"
                  "wxyz");
  const auto tensors = parse(file);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].type, DType::kF32);
  EXPECT_TRUE(tensors[0].dims.empty());
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].file, "m.safetensors");
  EXPECT_EQ(tensors[1].type, DType::kBF16);
  EXPECT_EQ(tensors[1].dims, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(
      std::string(reinterpret_cast<const char*>(tensors[1].bytes.data()), tensors[1].bytes.size()),
      "wxyz");
  EXPECT_EQ(tensors[2].type, DType::kF16);
  EXPECT_TRUE(tensors[2].bytes.empty());
}

TEST(Safetensors, AcceptsAnEmptyFileOfNoTensors) { EXPECT_TRUE(parse(safetensors("{}")).empty()); }

TEST(Safetensors, ListsDtypesItCannotComputeWith) {
  const auto tensors = parse(safetensors({{"i", "I64", {1}, std::string(8, '\0')},
                                          {"q", "F8_E4M3", {3}, "abc"},
                                          {"n", "F4", {2, 3}, "abc"},
                                          {"u", "SOMETHING_NEW", {5}, "abc"}}));
  ASSERT_EQ(tensors.size(), 4u);
  for (const auto& tensor : tensors) {
    EXPECT_FALSE(tensor.type) << tensor.name;
  }
  EXPECT_EQ(tensors[1].dtype, "F8_E4M3");
  EXPECT_EQ(tensors[3].dtype, "SOMETHING_NEW");
}

TEST(Safetensors, RefusesATruncatedFile) {
  const std::string whole = safetensors({{"t", "F32", {2}, std::string(8, '\0')}});
  for (size_t length = 0; length < whole.size(); ++length) {
    expect_corrupt(whole.substr(0, length), {"m.safetensors: "});
  }
  expect_corrupt("", {"m.safetensors: a safetensors file has at least 8 bytes; got 0"});
  expect_corrupt(whole.substr(0, 7), {"got 7"});
  expect_corrupt(whole.substr(0, 20), {"header of ", "but only 12 follow"});
  expect_corrupt(whole.substr(0, whole.size() - 1), {"m.safetensors: t: ends at 8 of 7 bytes"});
}

TEST(Safetensors, RefusesLyingHeaderSizes) {
  expect_corrupt(std::string(8, '\xff') + "{}", {"header of 18446744073709551615 bytes; at most"});
  expect_corrupt(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8),
                 {"header of 100000001 bytes; at most"});
  expect_corrupt(std::string("\x03\0\0\0\0\0\0\0{}", 10), {"header of 3 bytes, but only 2 follow"});
  expect_corrupt(std::string(8, '\0'), {"not valid JSON"});
}

TEST(Safetensors, RefusesAHeaderThatIsNoObjectOfTensors) {
  expect_corrupt(safetensors("[]"), {"m.safetensors: must hold a JSON object"});
  expect_corrupt(safetensors("{\"t\""), {"m.safetensors: not valid JSON"});
  expect_corrupt(safetensors(R"({"t":3})"), {"m.safetensors: t: must be an object; got 3"});
  expect_corrupt(safetensors(R"({"t":null})"), {"m.safetensors: t: must have dtype, shape"});
  expect_corrupt(safetensors(R"({"t":{"dtype":"F32","shape":[1]}})"),
                 {"m.safetensors: t: must have dtype, shape and two data_offsets"});
  expect_corrupt(one(R"({"dtype":4,"shape":[1],"data_offsets":[0,4]})", 4),
                 {"m.safetensors: t.dtype: must be a string; got 4"});
}

TEST(Safetensors, RefusesDuplicateNames) {
  expect_corrupt(safetensors(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                             "ab"),
                 {"m.safetensors: t: is listed twice"});
}

TEST(Safetensors, RefusesBadShapes) {
  expect_corrupt(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4),
                 {"m.safetensors: t.shape: must be an integer from 0", "got -1"});
  expect_corrupt(one(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", 4),
                 {"t.shape: must be an integer", "got 1.0"});
  expect_corrupt(one(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", 4),
                 {"t.shape: must be a list of integers"});
  expect_corrupt(one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})", 4),
                 {"t.shape: must be an integer"});
  // 2^32 * 2^32 and 2^40 * 2^24 wrap to 0 in 64 bits.
  expect_corrupt(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0),
                 {"m.safetensors: t: shape and dtype F32 need an impossible number of bytes"});
  expect_corrupt(one(R"({"dtype":"F32","shape":[1099511627776,16777216],"data_offsets":[0,0]})", 0),
                 {"m.safetensors: t: ", "impossible"});
  expect_corrupt(one(R"({"dtype":"F4","shape":[3],"data_offsets":[0,1]})", 1),
                 {"t: ", "impossible"});
  std::string ones = "1";
  for (int i = 0; i < 16; ++i) {
    ones += ",1";
  }
  expect_corrupt(one(R"({"dtype":"U8","shape":[)" + ones + R"(],"data_offsets":[0,1]})", 1),
                 {"m.safetensors: t: has 17 dimensions; at most 16"});
}

TEST(Safetensors, RefusesBadOffsets) {
  const std::string head = R"({"dtype":"F32","shape":[2],"data_offsets":)";
  expect_corrupt(one(head + "[8,0]}", 8), {"m.safetensors: t: begins at 8 after its end at 0"});
  expect_corrupt(one(head + "[4,12]}", 8), {"m.safetensors: t: ends at 12 of 8 bytes of data"});
  expect_corrupt(one(head + "[0,9223372036854775807]}", 8), {"t.data_offsets: must be an integer"});
  expect_corrupt(one(head + "[-8,0]}", 8), {"t.data_offsets: must be an integer", "got -8"});
  expect_corrupt(one(head + "[0]}", 8), {"t: must have dtype, shape and two data_offsets"});
  expect_corrupt(one(head + "[0,4,8]}", 8), {"t: must have dtype, shape and two data_offsets"});
  expect_corrupt(one(head + "[0,4]}", 8),
                 {"t: shape and dtype F32 need 8 bytes; its offsets give 4"});
  expect_corrupt(one(head + "[0,12]}", 12), {"need 8 bytes; its offsets give 12"});
}

TEST(Safetensors, RefusesOverlapsGapsAndTrailingBytes) {
  const auto two = [](const std::string& a, const std::string& b) {
    return safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                       std::string(10, '\0'));
  };
  expect_corrupt(two("[0,4]", "[3,7]"), {"m.safetensors: b: overlaps tensor a"});
  expect_corrupt(two("[0,4]", "[0,4]"), {"m.safetensors: ", "overlaps tensor"});
  expect_corrupt(two("[0,4]", "[5,9]"),
                 {"m.safetensors: b: 1 bytes before it belong to no tensor"});
  expect_corrupt(two("[0,4]", "[4,8]"), {"m.safetensors: the last 2 bytes belong to no tensor"});
  expect_corrupt(two("[2,6]", "[6,10]"), {"m.safetensors: a: 2 bytes before it"});
}

TEST(Safetensors, KeepsHostileNamesOnOneLine) {
  expect_corrupt(safetensors(R"({"a\nb\u0000c":7})"), {"m.safetensors: a?b?c: must be an object"});
}

}  // namespace
}  // namespace llorch
