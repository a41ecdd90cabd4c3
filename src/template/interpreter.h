// Runs a parsed template.
#pragma once

#include <string>

#include "template/ast.h"

namespace llorch::tmpl {

// What `program` prints with these variables. Throws Failure, its text "line L: reason". Needs a
// Budget on this thread, for nothing else bounds the run.
std::string run(const Program& program, const Dict& variables);

}  // namespace llorch::tmpl
