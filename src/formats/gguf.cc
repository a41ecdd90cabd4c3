#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "formats/file_error.h"

namespace llorch {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxKeyBytes = 65535;  // the format's own limit
constexpr uint64_t kMaxNameBytes = 1024;
constexpr uint32_t kMaxDims = 4;  // ggml's own limit
constexpr int kMaxArrayDepth = 4;
constexpr int64_t kMaxElements = int64_t{1} << 56;
constexpr int64_t kQuantizationVersion = 2;  // of the block layouts; version 1 had others

enum Type : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

struct TypeFacts {
  const char* name;
  uint64_t size;  // 0: not fixed
};
constexpr TypeFacts kTypes[] = {{"uint8", 1},  {"int8", 1},  {"uint16", 2},  {"int16", 2},
                                {"uint32", 4}, {"int32", 4}, {"float32", 4}, {"bool", 1},
                                {"string", 0}, {"array", 0}, {"uint64", 8},  {"int64", 8},
                                {"float64", 8}};

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

std::string_view text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// None if it is no integer, or above what int64_t holds.
std::optional<int64_t> as_integer(uint32_t type, std::span<const std::byte> bytes) {
  if (kTypes[type].size == 0) {
    return std::nullopt;
  }
  const uint64_t bits = little_endian(bytes);
  switch (type) {
    case kUint8:
    case kUint16:
    case kUint32:
      return static_cast<int64_t>(bits);
    case kUint64:
      if (bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return std::nullopt;
      }
      return static_cast<int64_t>(bits);
    case kInt8:
      return static_cast<int8_t>(bits);
    case kInt16:
      return static_cast<int16_t>(bits);
    case kInt32:
      return static_cast<int32_t>(bits);
    case kInt64:
      return static_cast<int64_t>(bits);
    default:
      return std::nullopt;
  }
}

std::optional<double> as_number(uint32_t type, std::span<const std::byte> bytes) {
  if (type == kFloat32) {
    return std::bit_cast<float>(static_cast<uint32_t>(little_endian(bytes)));
  }
  if (type == kFloat64) {
    return std::bit_cast<double>(little_endian(bytes));
  }
  const auto integer = as_integer(type, bytes);
  return integer ? std::optional(static_cast<double>(*integer)) : std::nullopt;
}

// Elements of a tensor, unless more than a file could hold.
std::optional<int64_t> element_count(const std::vector<int64_t>& dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) {
    if (dim > 0 && count > kMaxElements / dim) {
      return std::nullopt;
    }
    count *= dim;
  }
  return count;
}

}  // namespace

// Walks the file; whatever it hands out has been checked to be there.
class Gguf::Cursor {
 public:
  Cursor(std::span<const std::byte> content, const std::string& file)
      : content_(content), file_(file) {}

  // What is read now, for messages.
  void set_item(std::string item) { item_ = std::move(item); }
  uint64_t left() const { return content_.size() - at_; }
  uint64_t at() const { return at_; }

  std::span<const std::byte> take(uint64_t count) {
    if (count > left()) {
      throw_corrupt(file_, item_,
                    "needs " + std::to_string(count) + " bytes, but only " +
                        std::to_string(left()) + " are left in the file");
    }
    at_ += count;
    return content_.subspan(at_ - count, count);
  }
  uint32_t u32() { return static_cast<uint32_t>(little_endian(take(4))); }
  uint64_t u64() { return little_endian(take(8)); }
  std::span<const std::byte> string() { return take(u64()); }
  std::string_view name(uint64_t most) {
    const uint64_t length = u64();
    if (length == 0 || length > most) {
      throw_corrupt(file_, item_,
                    "its name has " + std::to_string(length) + " bytes; it must be 1 to " +
                        std::to_string(most));
    }
    return text(take(length));
  }
  uint32_t value_type() {
    const uint32_t type = u32();
    if (type >= std::size(kTypes)) {
      throw_corrupt(file_, item_, "has the unknown type " + std::to_string(type));
    }
    return type;
  }
  // Steps over `count` values; allocates nothing.
  void skip(uint32_t type, uint64_t count, int depth) {
    if (kTypes[type].size != 0) {
      // Values of one byte at least: what does not fit is refused before it is multiplied.
      take(count > left() ? count : count * kTypes[type].size);
      return;
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (type == kString) {
        string();
        continue;
      }
      if (depth == kMaxArrayDepth) {
        throw_corrupt(file_, item_, "arrays nested deeper than " + std::to_string(kMaxArrayDepth));
      }
      const uint32_t inner = value_type();
      skip(inner, u64(), depth + 1);
    }
  }
  std::span<const std::byte> since(uint64_t start) const {
    return content_.subspan(start, at_ - start);
  }
  // The tensors' data: from the next multiple of `alignment` on.
  std::span<const std::byte> data(uint64_t alignment) const {
    const uint64_t begin = (at_ + alignment - 1) / alignment * alignment;
    return begin > content_.size() ? std::span<const std::byte>() : content_.subspan(begin);
  }

 private:
  std::span<const std::byte> content_;
  const std::string& file_;
  std::string item_;
  uint64_t at_ = 0;
};

Gguf Gguf::parse(std::span<const std::byte> content, const std::string& file) {
  Gguf out(file);
  Cursor cursor(content, out.file_);
  if (content.size() < 4 || cursor.u32() != kMagic) {
    throw_corrupt(file, "", "does not begin with GGUF");
  }
  const uint32_t version = cursor.u32();
  if (version == 0 || (version & 0xFFFFu) == 0) {
    throw_unsupported(file, "", "big-endian GGUF files are not supported");
  }
  if (version != 2 && version != 3) {
    throw_unsupported(
        file, "", "GGUF version " + std::to_string(version) + " is not supported; supported: 2, 3");
  }
  cursor.set_item("header");
  const uint64_t tensors = cursor.u64(), values = cursor.u64();
  out.read_metadata(cursor, values);
  out.read_tensor_table(cursor, tensors);
  return out;
}

void Gguf::read_metadata(Cursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    cursor.set_item("key " + std::to_string(i) + " of " + std::to_string(count));
    const std::string_view key = cursor.name(kMaxKeyBytes);
    cursor.set_item(std::string(key));
    Value value;
    value.type = cursor.value_type();
    value.array = value.type == kArray;
    if (value.array) {
      value.type = cursor.value_type();
      value.count = cursor.u64();
    }
    const uint64_t start = cursor.at();
    cursor.skip(value.type, value.count, 1);
    value.bytes = cursor.since(start);
    if (!values_.emplace(key, value).second) {
      corrupt(key, "is listed twice");
    }
  }
}

// A line of the tensor table, before it is known where the data begins.
struct Gguf::Entry {
  StoredTensor tensor;
  uint64_t offset = 0, size = 0;
};

void Gguf::read_tensor_table(Cursor& cursor, uint64_t count) {
  const auto alignment = static_cast<uint64_t>(
      integer("general.alignment", 1, int64_t{1} << 31).value_or(kDefaultAlignment));
  if (!std::has_single_bit(alignment)) {
    corrupt("general.alignment", "must be a power of two; got " + std::to_string(alignment));
  }
  std::vector<Entry> entries;
  std::set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    cursor.set_item("tensor " + std::to_string(i) + " of " + std::to_string(count));
    const std::string_view name = cursor.name(kMaxNameBytes);
    cursor.set_item(std::string(name));
    if (!seen.insert(name).second) {
      corrupt(name, "is listed twice");
    }
    entries.push_back(read_entry(cursor, name));
    if (entries.back().offset % alignment != 0) {
      corrupt(name, "its offset " + std::to_string(entries.back().offset) +
                        " is not a multiple of " + std::to_string(alignment));
    }
  }
  const auto data = cursor.data(alignment);
  for (Entry& entry : entries) {
    if (entry.offset > data.size() || entry.size > data.size() - entry.offset) {
      corrupt(entry.tensor.name, "has " + std::to_string(entry.size) + " bytes at " +
                                     std::to_string(entry.offset) + " of " +
                                     std::to_string(data.size()) + " bytes of data");
    }
    entry.tensor.bytes = data.subspan(entry.offset, entry.size);
    tensors_.push_back(std::move(entry.tensor));
  }
  check_overlaps();
}

Gguf::Entry Gguf::read_entry(Cursor& cursor, std::string_view name) const {
  const uint32_t rank = cursor.u32();
  if (rank > kMaxDims) {
    corrupt(name, "has " + std::to_string(rank) + " dimensions; at most " +
                      std::to_string(kMaxDims) + " are allowed");
  }
  Entry entry;
  StoredTensor& tensor = entry.tensor;
  tensor.name = std::string(name);
  tensor.file = file_;
  for (uint32_t i = 0; i < rank; ++i) {
    const uint64_t dim = cursor.u64();
    if (dim > static_cast<uint64_t>(kMaxElements)) {
      corrupt(name, "has a dimension of " + std::to_string(dim));
    }
    tensor.dims.insert(tensor.dims.begin(), static_cast<int64_t>(dim));
  }
  const uint32_t id = cursor.u32();
  const GgmlType* type = find_ggml_type(id);
  if (type == nullptr) {
    unsupported(name,
                "type " + std::to_string(id) + " is unknown; supported: " + readable_ggml_types());
  }
  if (type->block_values > 1) {
    check_block_layout();
  }
  entry.offset = cursor.u64();
  const auto elements = element_count(tensor.dims);
  const int64_t row = tensor.dims.empty() ? 1 : tensor.dims.back();
  if (!elements || row % type->block_values != 0) {
    corrupt(name, !elements ? "has more elements than a file could hold"
                            : "its rows of " + std::to_string(row) + " are not whole blocks of " +
                                  std::to_string(type->block_values) + " " + type->name);
  }
  entry.size = static_cast<uint64_t>(*elements / type->block_values) *
               static_cast<uint64_t>(type->block_bytes);
  tensor.dtype = type->name;
  if (type->decode != nullptr) {
    const bool f16 = tensor.dtype == "F16", bf16 = tensor.dtype == "BF16";
    tensor.type = f16 ? DType::kF16 : bf16 ? DType::kBF16 : DType::kF32;
    tensor.blocks = type->block_values > 1 ? type : nullptr;
  }
  return entry;
}

void Gguf::check_block_layout() const {
  const char* key = "general.quantization_version";
  const auto layout = integer(key, 0, INT32_MAX).value_or(kQuantizationVersion);
  if (layout != kQuantizationVersion) {
    unsupported(key, std::to_string(layout) + " is not supported; supported: 2");
  }
}

void Gguf::check_overlaps() const {
  std::vector<const StoredTensor*> sorted;
  for (const StoredTensor& tensor : tensors_) {
    sorted.push_back(&tensor);
  }
  std::sort(sorted.begin(), sorted.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) <
           std::pair(b->bytes.data(), b->bytes.size());
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->bytes.data() + sorted[i - 1]->bytes.size() > sorted[i]->bytes.data()) {
      corrupt(sorted[i]->name, "overlaps tensor " + printable(sorted[i - 1]->name));
    }
  }
}

std::vector<std::string_view> Gguf::keys() const {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : values_) {
    keys.push_back(key);
  }
  return keys;
}

bool Gguf::is_array(std::string_view key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.array;
}

const Gguf::Value* Gguf::find(std::string_view key, bool array, std::string_view wanted) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return nullptr;
  }
  if (found->second.array != array) {
    wrong_type(key, wanted);
  }
  return &found->second;
}

void Gguf::wrong_type(std::string_view key, std::string_view wanted) const {
  const Value& value = values_.find(key)->second;
  corrupt(key, "must be " + std::string(wanted) + "; got " + (value.array ? "an array of " : "") +
                   kTypes[value.type].name);
}

std::optional<int64_t> Gguf::integer(std::string_view key, int64_t least, int64_t most) const {
  const std::string wanted =
      "an integer from " + std::to_string(least) + " to " + std::to_string(most);
  const Value* value = find(key, false, wanted);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto integer = as_integer(value->type, value->bytes);
  if (!integer && value->type != kUint64) {
    wrong_type(key, wanted);
  }
  if (!integer || *integer < least || *integer > most) {
    corrupt(key,
            "must be " + wanted + "; got " +
                (integer ? std::to_string(*integer) : std::to_string(little_endian(value->bytes))));
  }
  return integer;
}

std::optional<double> Gguf::number(std::string_view key, double least, double most) const {
  const Value* value = find(key, false, "a number");
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto number = as_number(value->type, value->bytes);
  if (!number) {
    wrong_type(key, "a number");
  }
  if (!(*number >= least && *number <= most)) {
    corrupt(key, "must be a number from " + std::to_string(least) + " to " + std::to_string(most) +
                     "; got " + std::to_string(*number));
  }
  return number;
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
  const Value* value = find(key, false, "true or false");
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != kBool) {
    wrong_type(key, "true or false");
  }
  const uint64_t byte = little_endian(value->bytes);
  if (byte > 1) {
    corrupt(key, "must be true or false; got the byte " + std::to_string(byte));
  }
  return byte == 1;
}

std::optional<std::string_view> Gguf::string(std::string_view key) const {
  const Value* value = find(key, false, "a string");
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != kString) {
    wrong_type(key, "a string");
  }
  return text(value->bytes.subspan(8));
}

std::optional<std::vector<std::string_view>> Gguf::strings(std::string_view key) const {
  const Value* value = find(key, true, "an array of strings");
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != kString) {
    wrong_type(key, "an array of strings");
  }
  std::vector<std::string_view> list;
  list.reserve(value->count);  // each has eight bytes of the file at least
  Cursor cursor(value->bytes, file_);
  for (uint64_t i = 0; i < value->count; ++i) {
    list.push_back(text(cursor.string()));
  }
  return list;
}

std::optional<std::vector<int64_t>> Gguf::integers(std::string_view key, int64_t least,
                                                   int64_t most) const {
  const Value* value = find(key, true, "an array of integers");
  if (value == nullptr) {
    return std::nullopt;
  }
  const uint32_t type = value->type == kBool ? static_cast<uint32_t>(kUint8) : value->type;
  const uint64_t size = kTypes[type].size;
  std::vector<int64_t> list;
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto integer =
        size == 0 ? std::nullopt : as_integer(type, value->bytes.subspan(i * size, size));
    if (!integer && type != kUint64) {
      wrong_type(key, "an array of integers");
    }
    if (!integer || *integer < least || *integer > most) {
      corrupt(key, "element " + std::to_string(i) + " must be from " + std::to_string(least) +
                       " to " + std::to_string(most));
    }
    list.push_back(*integer);
  }
  return list;
}

std::optional<std::vector<float>> Gguf::floats(std::string_view key) const {
  const Value* value = find(key, true, "an array of float32");
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != kFloat32) {
    wrong_type(key, "an array of float32");
  }
  std::vector<float> list(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    list[i] = std::bit_cast<float>(static_cast<uint32_t>(
        little_endian(value->bytes.subspan(i * sizeof(float), sizeof(float)))));
  }
  return list;
}

void Gguf::corrupt(std::string_view key, std::string_view reason) const {
  throw_corrupt(file_, key, reason);
}

void Gguf::unsupported(std::string_view key, std::string_view reason) const {
  throw_unsupported(file_, key, reason);
}

}  // namespace llorch
