#include "tokenizer/pieces.h"

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr size_t kMaxTextBytes = size_t{128} << 20;
// Normal forms make at most 18 characters of one, replacements for spaces 3 bytes of one.
constexpr size_t kMaxGrowth = 256;
constexpr size_t kMaxShortBytes = 64 * 1024;

[[noreturn]] void throw_too_long(size_t most_bytes) {
  throw Error(ErrorCode::kBadRequest,
              "[tokenizer] the text is too long for the tokenizer's steps; "
              "the most is " +
                  std::to_string(most_bytes) + " bytes");
}

}  // namespace

void Text::check(size_t new_size) const {
  if (new_size > most_bytes) throw_too_long(most_bytes);
}

Text original_text(std::string bytes) {
  if (bytes.size() > kMaxTextBytes) throw_too_long(kMaxTextBytes);
  const size_t most_bytes = std::min(kMaxTextBytes, bytes.size() * kMaxGrowth + kMaxShortBytes);
  const size_t origin_bytes = bytes.empty() ? 0 : char_bytes(bytes, 0);
  return {std::move(bytes), origin_bytes, most_bytes};
}

}  // namespace llorch::tok
