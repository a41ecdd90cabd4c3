// Rewrites a pattern of Oniguruma's Ruby syntax, which tokenizer files hold, as a PCRE2 pattern
// that matches the same. Knows nothing of matching.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace llorch::tok {

// The pattern uses what has no PCRE2 counterpart here; what() names it.
class UntranslatablePattern : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Stands in a translation that passes over a run of characters which it has scanned in vain.
inline constexpr std::string_view kSkip = "(*SKIP)";

// For PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE with newline LF. What is rewritten: \s \w \d \h \v \R
// \b and POSIX classes (different members), nested classes and && (unknown to PCRE2), \p names,
// (?m) (dot matches all), {n,m}+ (not possessive), {,n}, options in the middle of an alternative.
// `pattern` is valid UTF-8. Throws UntranslatablePattern.
std::string oniguruma_to_pcre2(std::string_view pattern);

}  // namespace llorch::tok
