// Numbers of a JSON text as the tokenizers library's parser reads them.
#pragma once

#include <string_view>

namespace llorch::tok {

// `number` is a JSON number in range. The library's parser rounds twice, so that the result is not
// always the nearest double; sums of scores are compared, and ties must be ties here too.
double library_double(std::string_view number);

}  // namespace llorch::tok
