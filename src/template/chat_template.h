// A model's chat template: messages in, prompt out, as transformers' apply_chat_template does it.
// Jinja as jinja2 3.1 has it in transformers' sandbox; include, import and extends are refused.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace llorch {

namespace tmpl {
struct Program;
}  // namespace tmpl

// One template. Immutable; any thread.
class ChatTemplate {
 public:
  // Throws Error{kUnsupported} "name: line L: reason".
  static ChatTemplate parse(std::string_view source, const std::string& name);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // `variables`: the text of a JSON object, in the order of its keys. Throws Error{kBadRequest}
  // "[chat_template] line L: reason" where the template raises an exception or fails, and where it
  // takes more steps or memory than a render may (some 100 ms of work at most on a small input).
  std::string render(std::string_view variables) const;

 private:
  friend class ChatTemplates;
  explicit ChatTemplate(std::shared_ptr<const tmpl::Program> program);
  std::shared_ptr<const tmpl::Program> program_;
};

// What a model says of chat. Immutable; any thread.
class ChatTemplates {
 public:
  // Each text may be empty. `chat_template_jinja` and `folder`/additional_chat_templates/*.jinja
  // stand before what tokenizer_config.json holds. Never throws for a template that does not parse:
  // usable() is false then, and why_not() says what is wrong.
  static ChatTemplates load(std::string_view tokenizer_config_json,
                            std::string_view chat_template_jinja, const std::string& folder);
  ChatTemplates();
  ~ChatTemplates();
  ChatTemplates(ChatTemplates&&) noexcept;
  ChatTemplates& operator=(ChatTemplates&&) noexcept;

  // JSON texts; an empty one is absent. kwargs: an object of variables besides.
  struct Input {
    std::string messages = {}, tools = {}, documents = {}, kwargs = {};
    bool add_generation_prompt = true;
  };
  bool usable() const { return why_not_.empty(); }
  const std::string& why_not() const { return why_not_; }
  // The prompt. With tools, the template "tool_use" if there is one, else "default". Throws
  // Error{kBadRequest} "[chat_template] ..."; the caller has asked usable().
  std::string apply(const Input& input) const;

 private:
  std::map<std::string, ChatTemplate> templates_;
  std::string special_tokens_ = "{}";  // JSON object: bos_token and the like
  std::string why_not_ = "the model has no chat template";
};

}  // namespace llorch
