// How a model file that cannot be used is reported: one line "file: item: reason", the item being a
// tensor or a key. Knows no format.
#pragma once

#include <string>
#include <string_view>

namespace llorch {

// `text` as it may appear in a one-line message: control bytes become '?', long text is cut.
std::string printable(std::string_view text);

// Throws Error{kCorruptFile} or Error{kUnsupported}. `item` may be empty and is made printable;
// `reason` must be so already.
[[noreturn]] void throw_corrupt(std::string_view file, std::string_view item,
                                std::string_view reason);
[[noreturn]] void throw_unsupported(std::string_view file, std::string_view item,
                                    std::string_view reason);

}  // namespace llorch
