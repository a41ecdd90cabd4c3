#include "template/runtime.h"

#include <cstring>

#include "template/budget.h"
#include "template/python_text.h"

namespace llorch::tmpl {

const Value* Args::find(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Params::Params(const char* function, const Args& args, std::initializer_list<const char*> names,
               size_t required)
    : function_(function), values_(names.size(), nullptr) {
  const std::string call = std::string(function) + "()";
  size_t by_position = 0, i = 0;
  for (const char* name : names) {
    if (name[0] != '*') ++by_position;
  }
  if (args.positional.size() > by_position) {
    throw Failure(call + " takes at most " + std::to_string(by_position) + " arguments (" +
                  std::to_string(args.positional.size()) + " given)");
  }
  for (; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [key, value] : args.named) {
    size_t at = 0;
    for (const char* name : names) {
      if (name[0] != '/' && key == (name[0] == '*' ? name + 1 : name)) break;
      ++at;
    }
    if (at == names.size()) {
      throw Failure(call + " got an unexpected keyword argument '" + key + "'");
    }
    if (values_[at] != nullptr)
      throw Failure(call + " got multiple values for argument '" + key + "'");
    values_[at] = &value;
  }
  for (i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      const char* name = *(names.begin() + i);
      throw Failure(call + " missing a required argument: '" + (name[0] == '/' ? name + 1 : name) +
                    "'");
    }
  }
}

int64_t Params::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  const Value& v = *values_[i];
  if (v.is_undefined()) throw Failure(v.text());
  if (!v.is_integer()) {
    throw Failure(std::string("'") + type_name(v) + "' object cannot be interpreted as an integer");
  }
  return v.as_int();
}

std::string Params::text(size_t i, std::string_view otherwise) const {
  return has(i) ? to_text(*values_[i]) : std::string(otherwise);
}

const std::string& Params::string(size_t i) const {
  const Value& v = *values_[i];
  if (!v.is_string()) {
    throw Failure(std::string(function_) + "() argument must be str, not " + type_name(v));
  }
  return v.text();
}

Value function(std::string name, Function::Body body) {
  return Value::object(Type::kFunction,
                       std::make_shared<Function>(std::move(name), std::move(body)));
}

Value Thing::call(Env&, const Args&) {
  throw Failure(std::string("'") + kind() + "' object is not callable");
}

Value join_text(const Value& separator, const std::vector<Value>& items, bool autoescape) {
  std::string glue = to_text(separator), out;
  bool markup = separator.is_string() && separator.as_string().markup && autoescape;
  if (autoescape && !markup) {
    for (const Value& v : items) markup |= v.is_string() && v.as_string().markup;
    if (markup) glue = html_escaped(glue);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const bool safe = items[i].is_string() && items[i].as_string().markup;
    std::string piece = to_text(items[i]);
    if (markup && !safe) piece = html_escaped(piece);
    spend_bytes(piece.size() + (i > 0 ? glue.size() : 0));
    if (i > 0) out += glue;
    out += piece;
  }
  return Value::string(std::move(out), markup);
}

}  // namespace llorch::tmpl
