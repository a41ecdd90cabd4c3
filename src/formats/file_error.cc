#include "formats/file_error.h"

#include "base/error.h"

namespace llorch {
namespace {

constexpr size_t kMaxShown = 200;

std::string line(std::string_view file, std::string_view item, std::string_view reason) {
  std::string text = printable(file) + ": ";
  if (!item.empty()) {
    text += printable(item) + ": ";
  }
  return text.append(reason);
}

}  // namespace

std::string printable(std::string_view text) {
  // Paths are cut in front: their end is what tells them apart.
  std::string shown(text.size() > kMaxShown ? text.substr(text.size() - kMaxShown) : text);
  if (text.size() > kMaxShown) {
    // Do not start inside a UTF-8 character.
    while (!shown.empty() && (static_cast<unsigned char>(shown.front()) & 0xC0u) == 0x80u) {
      shown.erase(shown.begin());
    }
    shown.insert(0, "...");
  }
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      c = '?';
    }
  }
  return shown;
}

void throw_corrupt(std::string_view file, std::string_view item, std::string_view reason) {
  throw Error(ErrorCode::kCorruptFile, line(file, item, reason));
}

void throw_unsupported(std::string_view file, std::string_view item, std::string_view reason) {
  throw Error(ErrorCode::kUnsupported, line(file, item, reason));
}

}  // namespace llorch
