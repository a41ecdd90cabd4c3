// Cuts a template into tokens, as jinja2 does with trim_blocks and lstrip_blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "template/value.h"

namespace llorch::tmpl {

// A template that cannot be used, and where.
class SyntaxError : public std::runtime_error {
 public:
  SyntaxError(int line, const std::string& what) : std::runtime_error(what), line_(line) {}
  int line() const { return line_; }

 private:
  int line_;
};

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kNumber,    // value
  kOperator,  // text
  kEnd,
};

struct Token {
  TokenType type;
  int line;
  std::string text;
  Value value;
  bool is(std::string_view op) const { return type == TokenType::kOperator && text == op; }
  bool is_name(std::string_view name) const { return type == TokenType::kName && text == name; }
};

// Ends with a kEnd. Throws SyntaxError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace llorch::tmpl
