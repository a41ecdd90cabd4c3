// Finds what a tokenizer file's pattern matches, as the library's regex engine does. Knows nothing
// of tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llorch::tok {

// A stretch of a text: what a pattern matched, or what lies between two matches.
struct Stretch {
  size_t begin, end;
  bool is_match;
};

// A compiled pattern. Immutable; any thread.
class Pattern {
 public:
  // Throws UntranslatablePattern, also for what is not a regular expression.
  static Pattern regex(std::string_view oniguruma);
  static Pattern literal(std::string text);

  // Cuts all of `text`, valid UTF-8, into stretches, in order. An empty text is one empty stretch.
  // Throws Error{kBadRequest} if the text makes the pattern take more steps, stack or time than a
  // request may have.
  void find(std::string_view text, std::vector<Stretch>& out) const;

 private:
  struct Code;
  Pattern() = default;
  void find_literal(std::string_view text, std::vector<Stretch>& out) const;

  std::shared_ptr<const Code> code_;  // none: a literal
  std::string literal_;
};

}  // namespace llorch::tok
