#include "formats/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "formats/file_error.h"
#include "formats/json_reader.h"

namespace llorch {
namespace {

constexpr uint64_t kPrefixBytes = 8;               // the header's length, little-endian
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDims = 16;
constexpr int64_t kMaxOffset = int64_t{1} << 56;  // times 64 bits it still fits 63 bits

struct DtypeBits {
  std::string_view name;
  int64_t bits;
  std::optional<DType> type;
};
constexpr DtypeBits kDtypes[] = {
    {"F32", 32, DType::kF32},         {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},       {"BOOL", 8, std::nullopt},
    {"U8", 8, std::nullopt},          {"I8", 8, std::nullopt},
    {"U16", 16, std::nullopt},        {"I16", 16, std::nullopt},
    {"U32", 32, std::nullopt},        {"I32", 32, std::nullopt},
    {"U64", 64, std::nullopt},        {"I64", 64, std::nullopt},
    {"F64", 64, std::nullopt},        {"C64", 64, std::nullopt},
    {"F8_E5M2", 8, std::nullopt},     {"F8_E4M3", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt}, {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt},     {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},     {"F4", 4, std::nullopt},
};

std::string_view header_of(std::span<const std::byte> content, const std::string& file) {
  if (content.size() < kPrefixBytes) {
    throw_corrupt(file, "",
                  "a safetensors file has at least 8 bytes; got " + std::to_string(content.size()));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    length |= static_cast<uint64_t>(content[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    throw_corrupt(file, "",
                  "header of " + std::to_string(length) + " bytes; at most " +
                      std::to_string(kMaxHeaderBytes) + " are allowed");
  }
  if (length > content.size() - kPrefixBytes) {
    throw_corrupt(file, "",
                  "header of " + std::to_string(length) + " bytes, but only " +
                      std::to_string(content.size() - kPrefixBytes) + " follow");
  }
  const auto text = content.subspan(kPrefixBytes, length);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

// Bytes of a tensor of these dims, unless they pass what a file could hold.
std::optional<int64_t> size_in_bytes(const std::vector<int64_t>& dims, int64_t bits) {
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) {
    return 0;
  }
  int64_t elements = 1;
  for (const int64_t dim : dims) {
    if (dim > kMaxOffset / elements) {
      return std::nullopt;
    }
    elements *= dim;
  }
  const int64_t total_bits = elements * bits;
  return total_bits % 8 == 0 ? std::optional(total_bits / 8) : std::nullopt;
}

StoredTensor read_entry(const JsonReader& header, const std::string& name,
                        std::span<const std::byte> data, const std::string& file) {
  const auto entry = header.object(name);
  const auto dtype = entry ? entry->string("dtype") : std::nullopt;
  const auto dims = entry ? entry->integers("shape", 0, kMaxOffset) : std::nullopt;
  const auto offsets = entry ? entry->integers("data_offsets", 0, kMaxOffset) : std::nullopt;
  if (!dtype || !dims || !offsets || offsets->size() != 2) {
    throw_corrupt(file, name, "must have dtype, shape and two data_offsets");
  }
  if (dims->size() > kMaxDims) {
    throw_corrupt(file, name,
                  "has " + std::to_string(dims->size()) + " dimensions; at most " +
                      std::to_string(kMaxDims) + " are allowed");
  }
  const auto data_bytes = static_cast<int64_t>(data.size());
  const int64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (begin > end) {
    throw_corrupt(
        file, name,
        "begins at " + std::to_string(begin) + " after its end at " + std::to_string(end));
  }
  if (end > data_bytes) {
    throw_corrupt(
        file, name,
        "ends at " + std::to_string(end) + " of " + std::to_string(data_bytes) + " bytes of data");
  }
  StoredTensor tensor;
  tensor.name = name;
  tensor.file = file;
  tensor.dtype = *dtype;
  tensor.dims = *dims;
  const auto known = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                  [&](const DtypeBits& d) { return d.name == *dtype; });
  if (known != std::end(kDtypes)) {
    tensor.type = known->type;
    const auto wanted = size_in_bytes(*dims, known->bits);
    if (wanted != end - begin) {
      throw_corrupt(file, name,
                    "shape and dtype " + *dtype + " need " +
                        (wanted ? std::to_string(*wanted) : "an impossible number of") +
                        " bytes; its offsets give " + std::to_string(end - begin));
    }
  }
  tensor.bytes = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  return tensor;
}

void check_coverage(std::vector<StoredTensor>& tensors, std::span<const std::byte> data,
                    const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  size_t covered = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto begin = static_cast<size_t>(tensors[i].bytes.data() - data.data());
    if (begin < covered) {
      throw_corrupt(file, tensors[i].name, "overlaps tensor " + printable(tensors[i - 1].name));
    }
    if (begin > covered) {
      throw_corrupt(file, tensors[i].name,
                    std::to_string(begin - covered) + " bytes before it belong to no tensor");
    }
    covered += tensors[i].bytes.size();
  }
  if (covered != data.size()) {
    throw_corrupt(
        file, "",
        "the last " + std::to_string(data.size() - covered) + " bytes belong to no tensor");
  }
}

}  // namespace

std::vector<StoredTensor> parse_safetensors(std::span<const std::byte> content,
                                            const std::string& file) {
  const std::string_view text = header_of(content, file);
  const auto data = content.subspan(kPrefixBytes + text.size());
  const JsonReader header = JsonReader::parse(text, file);
  std::vector<StoredTensor> tensors;
  for (const std::string& name : header.keys()) {
    if (name != "__metadata__") {
      tensors.push_back(read_entry(header, name, data, file));
    }
  }
  check_coverage(tensors, data, file);
  return tensors;
}

}  // namespace llorch
