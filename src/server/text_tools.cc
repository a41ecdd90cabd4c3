#include "server/text_tools.h"

#include <string>
#include <vector>

#include "server/json_fields.h"
#include "server/json_text.h"

namespace llorch {
namespace {

Reply ok(std::string body) {
  Reply reply;
  reply.body = std::move(body);
  return reply;
}

}  // namespace

Reply tokenize(const Tokenizer& tokenizer, std::string_view body) {
  constexpr std::string_view kKnown[] = {"prompt", "content", "add_special", "parse_special"};
  const Json object = parse_object(body, kKnown);
  const Fields fields(object);
  const bool content = fields.find("content") != nullptr;
  if (content && fields.find("prompt")) fields.wrong("content", "is `prompt` by another name");
  const std::string text = fields.required_string(content ? "content" : "prompt");
  const std::vector<int32_t> ids =
      tokenizer.encode(text, {.add_special_tokens = fields.boolean("add_special", true),
                              .parse_special = fields.boolean("parse_special", true)});
  std::string out = "{\"tokens\":[";
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(ids[i]);
  }
  return ok(out + "],\"count\":" + std::to_string(ids.size()) + "}");
}

Reply detokenize(const Tokenizer& tokenizer, std::string_view body) {
  constexpr std::string_view kKnown[] = {"tokens"};
  const Json object = parse_object(body, kKnown);
  const std::vector<int32_t> ids = token_ids(Fields(object).required("tokens"), "tokens");
  return ok("{\"content\":" + json_string(tokenizer.decode(ids, false)) + "}");
}

}  // namespace llorch
