// Base64 as RFC 4648 has it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llorch::tok {

// The bytes that `text` stands for; none if it is not whole and canonical, with its padding.
std::optional<std::string> bytes_of_base64(std::string_view text);

}  // namespace llorch::tok
