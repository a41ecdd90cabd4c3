// A chat template, and after a NUL byte the JSON object of its variables, both of any bytes: a text
// that is UTF-8, or an Error. The same template stands in a tokenizer_config.json that is those
// bytes, and is applied to them as messages.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "template/chat_template.h"

using llorch::ChatTemplate;
using llorch::ChatTemplates;
using llorch::Error;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  const auto variables = end == text.npos ? std::string_view("{}") : text.substr(end + 1);
  try {
    ChatTemplate::parse(text.substr(0, end), "template").render(variables);
  } catch (const Error&) {
  }
  const ChatTemplates chat = ChatTemplates::load(variables, text.substr(0, end), "");
  CHECK(chat.usable() == chat.why_not().empty());
  try {
    if (chat.usable()) {
      chat.apply({.messages = std::string(variables), .tools = "[{}]", .kwargs = "{\"x\": 1.0}"});
      chat.apply({.messages = "[{\"role\": \"user\", \"content\": \"hi\"}]"});
    }
  } catch (const Error&) {
  }
  return 0;
}
