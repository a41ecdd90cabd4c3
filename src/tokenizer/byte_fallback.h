// The tokens <0x00> ... <0xFF> that stand for single bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llorch::tok {

std::string byte_token(unsigned byte);
// The byte that `token` stands for to the library, which reads two digits of either case, the first
// of which may be a plus sign.
std::optional<char> byte_of_token(std::string_view token);

}  // namespace llorch::tok
