// Tokens to nodes, by jinja2's grammar with loop controls and generation blocks.
#pragma once

#include <string_view>

#include "template/ast.h"

namespace llorch::tmpl {

// Throws SyntaxError (lexer.h).
Program parse(std::string_view source);

// Gives every variable its place, as jinja2's compiler does, and looks filters and tests up. Throws
// SyntaxError where that compiler refuses the template.
void resolve_scopes(Program& program);

}  // namespace llorch::tmpl
