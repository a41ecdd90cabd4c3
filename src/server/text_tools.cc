#include "server/text_tools.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "server/json_fields.h"
#include "server/json_text.h"

namespace llorch {
namespace {

Reply ok(std::string body) {
  Reply reply;
  reply.body = std::move(body);
  return reply;
}

// As JSON text; empty if it is absent, or null where that may be.
std::string array_of_objects(const Fields& fields, const char* name) {
  const Json* value = fields.find(name);
  if (!value || (value->is_null() && std::string_view(name) != "messages")) return {};
  const auto is_object = [](const Json& one) { return one.is_object(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_object)) {
    fields.wrong(name, "must be an array of objects");
  }
  return value->dump();
}

}  // namespace

Reply tokenize(const Tokenizer& tokenizer, std::string_view body) {
  constexpr std::string_view kKnown[] = {"prompt", "content", "add_special", "parse_special"};
  const JsonTree object = parse_object(body, kKnown);
  const Fields fields(object.root);
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
  const JsonTree object = parse_object(body, kKnown);
  const std::vector<int32_t> ids = token_ids(Fields(object.root).required("tokens"), "tokens");
  return ok("{\"content\":" + json_string(tokenizer.decode(ids, false)) + "}");
}

Reply apply_template(const ChatTemplates& templates, std::string_view body) {
  constexpr std::string_view kKnown[] = {"messages", "tools", "documents", "add_generation_prompt",
                                         "chat_template_kwargs"};
  const JsonTree object = parse_object(body, kKnown);
  const Fields fields(object.root);
  ChatTemplates::Input input;
  fields.required("messages");
  input.messages = array_of_objects(fields, "messages");
  input.tools = array_of_objects(fields, "tools");
  input.documents = array_of_objects(fields, "documents");
  input.add_generation_prompt = fields.boolean("add_generation_prompt", true);
  if (const Json* kwargs = fields.find("chat_template_kwargs"); kwargs && !kwargs->is_null()) {
    if (!kwargs->is_object()) fields.wrong("chat_template_kwargs", "must be an object or null");
    input.kwargs = kwargs->dump();
  }
  if (!templates.usable()) return refuse(Refusal::kNoChatTemplate, templates.why_not());
  try {
    return ok("{\"prompt\":" + json_string(templates.apply(input)) + "}");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadRequest) throw;
    return refuse({FieldError{"messages", "chat_template", error.what(), std::nullopt}});
  }
}

}  // namespace llorch
