// Values as JSON text and as the text of messages. Writes only; knows no requests and no library.
#pragma once

#include <string>
#include <string_view>

namespace llorch {

// Quoted and escaped. Bytes that are not UTF-8 become U+FFFD, so that every line stays JSON.
std::string json_string(std::string_view text);
bool is_utf8(std::string_view text);
// The whole characters within the first `most` bytes of UTF-8.
std::string_view beginning(std::string_view text, size_t most);
// The shortest digits that give this f32 back. JSON has no infinities and no NaN: the nearest
// finite value, and 0 for NaN.
std::string json_number(float value);
// The same of a value rounded to so many significant digits, at most 6.
std::string json_number(double value, int digits);
// The same digits for a message: never an exponent, no trailing zero; "3", "2.1", "-0.1", "inf".
std::string plain_number(float value);

}  // namespace llorch
