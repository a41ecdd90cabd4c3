#include "template/chat_template.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "template/budget.h"
#include "template/interpreter.h"
#include "template/lexer.h"
#include "template/parser.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch {
namespace {

using tmpl::Dict;
using tmpl::Type;
using tmpl::Value;

constexpr size_t kMostSource = size_t{4} << 20;

[[noreturn]] void bad_request(const std::string& what) {
  throw Error(ErrorCode::kBadRequest, "[chat_template] " + what);
}

std::string render(const tmpl::Program& program, const Dict& variables, size_t input_bytes) {
  const tmpl::Budget budget(input_bytes);
  try {
    std::string out = tmpl::run(program, variables);
    if (tmpl::has_surrogate(out)) throw tmpl::Failure("surrogates not allowed in the prompt");
    return out;
  } catch (const tmpl::Failure& e) {
    bad_request(e.what());
  }
}

Value parse_json(std::string_view text, const char* what) {
  try {
    return tmpl::from_json(text, std::string("[chat_template] ") + what);
  } catch (const tmpl::Failure& e) {
    bad_request(std::string(what) + ": " + e.what());
  }
}

// A list of objects, none for an absent text or null.
Value parse_objects(const std::string& text, const char* what) {
  Value v = text.empty() ? Value::none() : parse_json(text, what);
  if (v.is(Type::kNone)) return v;
  if (!v.is(Type::kList)) bad_request(std::string(what) + ": must be a list");
  for (const Value& item : v.items()) {
    if (!item.is(Type::kDict)) bad_request(std::string(what) + ": must be a list of objects");
  }
  return v;
}

// A message without its null fields, and with its reasoning under each of the names that templates
// read it by.
Value prepared(const Value& message) {
  static constexpr const char* kReasoning[] = {"reasoning_content", "thinking", "reasoning"};
  Dict present;
  for (const auto& [key, value] : message.as_dict().entries) {
    if (!value.is(Type::kNone)) present.set(key, value);
  }
  const Value* reasoning = nullptr;
  for (const char* name : kReasoning) {
    if (reasoning == nullptr) reasoning = present.find(std::string_view(name));
  }
  auto out = std::make_shared<Dict>();
  if (reasoning != nullptr) out->set(Value::string("thinking"), *reasoning);
  for (const auto& [key, value] : present.entries) out->set(key, value);
  if (reasoning != nullptr) out->set(Value::string("reasoning_content"), *reasoning);
  return Value::dict(std::move(out));
}

// A special token: a text, or an object whose "content" is one.
std::optional<Value> token_text(const Value& v) {
  if (v.is_string()) return v;
  if (!v.is(Type::kDict)) return {};
  const Value* content = v.as_dict().find(std::string_view("content"));
  if (content == nullptr || !content->is_string()) return {};
  return *content;
}

// As transformers' special_tokens_map: the standard names, any other *_token that is a text, and
// the named ones of extra_special_tokens.
Value special_tokens(const Dict& config) {
  static constexpr const char* kStandard[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                              "pad_token", "cls_token", "mask_token"};
  auto out = std::make_shared<Dict>();
  for (const char* name : kStandard) {
    const Value* v = config.find(std::string_view(name));
    if (v == nullptr) continue;
    if (const auto text = token_text(*v)) out->set(Value::string(name), *text);
  }
  const auto add = [&out](const Value& key, const Value& v) {
    if (const auto text = token_text(v)) out->set(key, *text);
  };
  for (const auto& [key, value] : config.entries) {
    const bool standard =
        std::find(std::begin(kStandard), std::end(kStandard), key.text()) != std::end(kStandard);
    if (!standard && key.text().ends_with("_token")) add(key, value);
  }
  const Value* extra = config.find(std::string_view("extra_special_tokens"));
  if (extra != nullptr && extra->is(Type::kDict)) {
    for (const auto& [key, value] : extra->as_dict().entries) add(key, value);
  }
  return Value::dict(std::move(out));
}

using Sources = std::map<std::string, std::string>;  // by the template's name

void read_additional(const std::string& folder, Sources& sources) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path path = fs::path(folder) / "additional_chat_templates";
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".jinja" || !at->is_regular_file(error)) continue;
    if (at->file_size(error) > kMostSource) continue;
    std::ifstream in(at->path(), std::ios::binary);
    sources[at->path().stem().string()] = std::string(std::istreambuf_iterator<char>(in), {});
  }
}

// The field chat_template: a text, or a list of {name, template}.
void read_config(const Dict& config, Sources& sources) {
  const Value* field = config.find(std::string_view("chat_template"));
  if (field == nullptr || field->is(Type::kNone)) return;
  if (field->is_string()) {
    sources["default"] = field->text();
    return;
  }
  const auto wrong = [] {
    throw Error(
        ErrorCode::kUnsupported,
        "tokenizer_config.json: chat_template: must be a text or a list of named templates");
  };
  if (!field->is(Type::kList)) return wrong();
  for (const Value& item : field->items()) {
    if (!item.is(Type::kDict)) return wrong();
    const Value* name = item.as_dict().find(std::string_view("name"));
    const Value* source = item.as_dict().find(std::string_view("template"));
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return wrong();
    }
    sources[name->text()] = source->text();
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const tmpl::Program> program)
    : program_(std::move(program)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

ChatTemplate ChatTemplate::parse(std::string_view source, const std::string& name) {
  if (source.size() > kMostSource) {
    throw Error(ErrorCode::kUnsupported, name + ": the template is too long");
  }
  try {
    return ChatTemplate(std::make_shared<const tmpl::Program>(tmpl::parse(source)));
  } catch (const tmpl::SyntaxError& e) {
    throw Error(ErrorCode::kUnsupported,
                name + ": line " + std::to_string(e.line()) + ": " + e.what());
  } catch (const tmpl::Failure& e) {
    throw Error(ErrorCode::kUnsupported, name + ": " + e.what());
  }
}

std::string ChatTemplate::render(std::string_view variables) const {
  const Value v = parse_json(variables, "variables");
  if (!v.is(Type::kDict)) bad_request("variables: must be an object");
  return llorch::render(*program_, v.as_dict(), variables.size());
}

ChatTemplates::ChatTemplates() = default;
ChatTemplates::~ChatTemplates() = default;
ChatTemplates::ChatTemplates(ChatTemplates&&) noexcept = default;
ChatTemplates& ChatTemplates::operator=(ChatTemplates&&) noexcept = default;

ChatTemplates ChatTemplates::load(std::string_view tokenizer_config_json,
                                  std::string_view chat_template_jinja, const std::string& folder) {
  ChatTemplates loaded;
  try {
    Value config = Value::dict(std::make_shared<Dict>());
    if (!tokenizer_config_json.empty()) {
      config = tmpl::from_json(tokenizer_config_json, "tokenizer_config.json");
    }
    if (!config.is(Type::kDict)) {
      throw Error(ErrorCode::kUnsupported, "tokenizer_config.json: must be an object");
    }
    loaded.special_tokens_ = tmpl::to_json(special_tokens(config.as_dict()), {});
    Sources sources;
    if (!folder.empty()) read_additional(folder, sources);
    if (!chat_template_jinja.empty()) sources["default"] = std::string(chat_template_jinja);
    const bool from_files = !sources.empty();
    if (!from_files) read_config(config.as_dict(), sources);
    if (sources.empty()) return loaded;
    // The others have no way to be chosen.
    for (const char* name : {"default", "tool_use"}) {
      const auto source = sources.find(name);
      if (source == sources.end()) continue;
      const std::string where = !from_files ? "tokenizer_config.json: chat_template"
                                : source->first == "default"
                                    ? "chat_template.jinja"
                                    : "additional_chat_templates/tool_use.jinja";
      loaded.templates_.emplace(name, ChatTemplate::parse(source->second, where));
    }
    if (loaded.templates_.empty()) {
      throw Error(ErrorCode::kUnsupported, "the model has chat templates but none named default");
    }
    loaded.why_not_.clear();
  } catch (const Error& e) {
    loaded.why_not_ = e.what();
  } catch (const tmpl::Failure& e) {
    loaded.why_not_ = std::string("tokenizer_config.json: ") + e.what();
  }
  return loaded;
}

std::string ChatTemplates::apply(const Input& input) const {
  if (!usable()) bad_request(why_not_);
  const Value messages = parse_objects(input.messages, "messages");
  if (messages.is(Type::kNone) || messages.items().empty()) {
    bad_request("messages: must hold at least one message");
  }
  std::vector<Value> conversation;
  for (const Value& message : messages.items()) conversation.push_back(prepared(message));
  const Value tools = parse_objects(input.tools, "tools");

  Dict variables;
  const Value tokens = parse_json(special_tokens_, "special tokens");
  for (const auto& [key, value] : tokens.as_dict().entries) {
    variables.set(key, value);
  }
  if (!input.kwargs.empty()) {
    const Value kwargs = parse_json(input.kwargs, "chat_template_kwargs");
    if (!kwargs.is(Type::kDict) && !kwargs.is(Type::kNone)) {
      bad_request("chat_template_kwargs: must be an object");
    }
    if (kwargs.is(Type::kDict)) {
      for (const auto& [key, value] : kwargs.as_dict().entries) variables.set(key, value);
    }
  }
  variables.set(Value::string("messages"), Value::list(std::move(conversation)));
  variables.set(Value::string("tools"), tools);
  variables.set(Value::string("documents"), parse_objects(input.documents, "documents"));
  variables.set(Value::string("add_generation_prompt"),
                Value::boolean(input.add_generation_prompt));
  const bool tool_use = !tools.is(Type::kNone) && templates_.contains("tool_use");
  const auto chosen = templates_.find(tool_use ? "tool_use" : "default");
  if (chosen == templates_.end()) bad_request("the model has no template for chats without tools");
  return render(
      *chosen->second.program_, variables,
      input.messages.size() + input.tools.size() + input.documents.size() + input.kwargs.size());
}

}  // namespace llorch
