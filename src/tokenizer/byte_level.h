// The byte-level alphabet: each byte as one printable character, as GPT-2 has it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llorch::tok {

// Appends the character that stands for `byte`.
void append_byte_level(std::string& out, unsigned char byte);
// The bytes that `token`, valid UTF-8, stands for; none if a character is not of the alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

}  // namespace llorch::tok
