// A chat template of any bytes: refused by an Error, or one that runs without variables to an end.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "template/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  try {
    llorch::ChatTemplate::parse(source, "template").render("{}");
  } catch (const llorch::Error&) {
  }
  return 0;
}
