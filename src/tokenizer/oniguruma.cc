#include "tokenizer/oniguruma.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tokenizer/oniguruma_classes.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr int kMaxDepth = 50;
constexpr size_t kMaxPatternBytes = 64 * 1024;

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// Characters that Oniguruma, but not PCRE2, takes for several where case does not matter.
bool folds_to_several(char32_t c) {
  constexpr char32_t kSingle[] = {0xDF, 0x130, 0x149, 0x1F0, 0x390, 0x3B0, 0x587, 0x1E9E};
  return std::find(std::begin(kSingle), std::end(kSingle), c) != std::end(kSingle) ||
         (c >= 0x1E96 && c <= 0x1E9A) || (c >= 0x1F50 && c <= 0x1F56) ||
         (c >= 0x1F80 && c <= 0x1FFC) || (c >= 0xFB00 && c <= 0xFB17);
}

// Two characters that it may take for one of those: ss, st, ff, fi, fl, and letters with a mark.
bool may_fold_to_one(char32_t first, char32_t second) {
  const auto lower = [](char32_t c) {
    return c == 0x17F ? U's' : c >= 'A' && c <= 'Z' ? c + 32 : c;
  };
  const char32_t a = lower(first), b = lower(second);
  if (a == 's') return b == 's' || b == 't';
  if (a == 'f') return b == 'f' || b == 'i' || b == 'l';
  return a == 0x2BC || b == 0x2BE || (b >= 0x300 && b <= 0x345) || b == 0x399 || b == 0x3B9 ||
         b == 0x1FBE || (a >= 0x531 && a <= 0x586);
}

std::string code_point(char32_t c) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string digits;
  for (; c != 0 || digits.empty(); c >>= 4) digits.insert(digits.begin(), kDigits[c & 15]);
  return "\\x{" + digits + "}";
}

// Letters and digits as they are, so that a pattern stays readable in a debugger.
std::string literal(char32_t c) {
  if (c < 0x80 && is_alnum(static_cast<char>(c))) return std::string(1, static_cast<char>(c));
  return code_point(c);
}

// What one character must be: in the bracket members, or matched by one of the other patterns.
struct CharSet {
  std::string members;
  std::vector<std::string> others;  // each matches one character

  std::string pattern(bool negated) const {
    if (others.empty()) return (negated ? "[^" : "[") + members + "]";
    std::string any = "(?:";
    if (!members.empty()) any += "[" + members + "]|";
    for (size_t i = 0; i < others.size(); ++i) any += (i == 0 ? "" : "|") + others[i];
    any += ")";
    return negated ? "(?:(?!" + any + ")(?s:.))" : any;
  }
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    if (in_.size() > kMaxPatternBytes) fail("a pattern longer than 64 KiB");
    std::string out = alternatives(0);
    if (at_ != in_.size()) fail("an unmatched )");
    // `C+$` is tried from every character of a long run in vain. The second branch, which skips the
    // run once the first has failed, changes no match: a later start has the same ends to try.
    if (top_.size() == 2 && top_[0].one_char && top_[0].quantifier == "+" && top_[1].text == "$") {
      out += "|" + top_[0].text + "++" + std::string(kSkip) + "(*F)";
    }
    return out;
  }

 private:
  struct Atom {
    std::string text;
    std::string quantifier;
    bool one_char = false;  // matches exactly one character
    bool repeatable = true;
  };

  [[noreturn]] static void fail(const std::string& what) { throw UntranslatablePattern(what); }

  bool done() const { return at_ == in_.size(); }
  char peek() const { return done() ? '\0' : in_[at_]; }
  bool take(std::string_view text) {
    if (in_.substr(at_, text.size()) != text) return false;
    at_ += text.size();
    return true;
  }
  char32_t next_char() {
    if (done()) fail("a pattern that ends too soon");
    const char32_t c = char_at(in_, at_);
    at_ += char_bytes(in_, at_);
    return c;
  }

  // Up to the ) that closes the group, or the end.
  std::string alternatives(int depth) {
    if (depth > kMaxDepth) fail("groups nested too deep");
    std::string out;
    bool single = true;
    std::vector<Atom> atoms;
    while (!done() && peek() != ')') {
      if (take("|")) {
        out += "|";
        single = false;
        continue;
      }
      atoms.push_back(repeated(atom(depth)));
      out += atoms.back().text + atoms.back().quantifier;
    }
    if (depth == 0 && single) top_ = std::move(atoms);
    return out;
  }

  Atom atom(int depth) {
    at_before_ = at_;
    switch (peek()) {
      case '(':
        return group(depth);
      case '[':
        ++at_;
        return {bracket(depth), "", true};
      case '\\':
        ++at_;
        return escape();
      case '.':
        ++at_;
        return {".", "", true};
      case '^':
      case '$':
        return {std::string(1, in_[at_++]), "", false, false};
      case '*':
      case '+':
      case '?':
        fail("a quantifier with nothing to repeat");
      default:
        return literal_atom(next_char());
    }
  }

  Atom literal_atom(char32_t c) {
    if (ignores_case_ && (folds_to_several(c) ||
                          (literal_end_ == at_before_ && may_fold_to_one(last_literal_, c)))) {
      fail("a character that stands for several without regard to case");
    }
    last_literal_ = c;
    literal_end_ = at_;
    return {literal(c), "", true};
  }

  struct Interval {
    uint32_t least;
    std::optional<uint32_t> most;
  };

  std::optional<uint32_t> number() {
    if (peek() < '0' || peek() > '9') return std::nullopt;
    uint32_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = std::min<uint32_t>(value * 10 + static_cast<uint32_t>(in_[at_++] - '0'), 1'000'000);
    }
    if (value > 65535) fail("an interval above 65535");
    return value;
  }

  // {n} {n,} {,m} {n,m}; anything else after { is literal text.
  std::optional<Interval> interval() {
    const size_t start = at_;
    if (!take("{")) return std::nullopt;
    const std::optional<uint32_t> least = number();
    std::optional<uint32_t> most = least;
    if (take(",")) most = number();
    if ((!least && !most) || !take("}")) {
      at_ = start;
      return std::nullopt;
    }
    if (most && *most < least.value_or(0)) fail("an interval whose bounds are swapped");
    return Interval{least.value_or(0), most};
  }

  Atom repeated(Atom target) {
    const char c = peek();
    if (c == '*' || c == '+' || c == '?') {
      target.quantifier = std::string(1, in_[at_++]);
      if (peek() == '?' || peek() == '+') target.quantifier += in_[at_++];
    } else if (const std::optional<Interval> range = interval()) {
      const bool exact = range->most && *range->most == range->least;
      target.quantifier = "{" + std::to_string(range->least) + (exact ? "" : ",") +
                          (exact || !range->most ? "" : std::to_string(*range->most)) + "}";
      if (peek() == '?') {
        if (exact) fail("{n}?");
        target.quantifier += in_[at_++];
      } else if (peek() == '+') {
        // Not possessive in this syntax: a second quantifier.
        ++at_;
        target = {"(?:" + target.text + target.quantifier + ")", "+"};
      }
    } else {
      return target;
    }
    if (!target.repeatable) fail("a quantifier after an anchor");
    const size_t before = at_;
    if (peek() == '*' || peek() == '+' || peek() == '?' || interval()) {
      at_ = before;
      fail("a quantifier on a quantifier");
    }
    return target;
  }

  Atom group(int depth) {
    ++at_;
    std::string open = "(?:";
    bool repeatable = true;
    if (take("?")) {
      if (take("#")) {
        while (!done() && peek() != ')') ++at_;
        if (!take(")")) fail("a comment without end");
        return {"", "", false, false};
      }
      if (take(":")) {
      } else if (take("=") || take("!") || take("<=") || take("<!")) {
        size_t begin = at_;
        while (in_[begin - 1] != '?') --begin;
        open = "(?" + std::string(in_.substr(begin, at_ - begin));
        repeatable = false;
      } else if (take(">")) {
        open = "(?>";
      } else if (peek() == '<') {
        // Nothing refers to a group here (a reference is refused), so that names do not matter.
        while (!done() && peek() != '>') ++at_;
        if (!take(">")) fail("a group name without end");
      } else {
        return options(depth);
      }
    }
    std::string inside = alternatives(depth + 1);
    if (!take(")")) fail("an unmatched (");
    return {open + inside + ")", "", false, repeatable};
  }

  // (?i) and (?i:...). Without a colon the options hold to the end of the group, later alternatives
  // included: a(?i)b|c is a(?i:b|c).
  Atom options(int depth) {
    std::string letters;
    while (!done() && peek() != ':' && peek() != ')') {
      const char c = in_[at_++];
      if (c != 'i' && c != 'm' && c != '-') fail("the group (?" + std::string(1, c));
      letters += c == 'm' ? 's' : c;
    }
    if (letters.empty() || done()) fail("the group (?");
    const bool to_end = in_[at_++] == ')';
    const bool before = ignores_case_;
    const size_t minus = letters.find('-');
    if (letters.find('i') < minus) ignores_case_ = true;
    if (minus != std::string::npos && letters.find('i', minus) != std::string::npos) {
      ignores_case_ = false;
    }
    std::string inside = alternatives(depth + 1);
    ignores_case_ = before;
    if (!to_end && !take(")")) fail("an unmatched (");
    return {"(?" + letters + ":" + inside + ")", ""};
  }

  // After "\x" or "\u": the code point.
  char32_t hex_escape(char kind) {
    const bool braces = kind == 'x' && take("{");
    const size_t most = braces ? 8 : kind == 'x' ? 2 : 4;
    char32_t value = 0;
    size_t digits = 0;
    for (; digits < most && !done(); ++digits, ++at_) {
      const char c = in_[at_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) break;
      value = value * 16 + static_cast<char32_t>(digit);
    }
    const bool whole = braces ? digits > 0 && take("}") : kind == 'x' ? digits > 0 : digits == 4;
    if (!whole || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail("a damaged hexadecimal escape");
    }
    // Without braces \xHH is a byte, not a character, to Oniguruma.
    if (kind == 'x' && !braces && value >= 0x80) fail("\\x of a byte above 7F");
    return value;
  }

  // The character an escape stands for in and out of brackets, if it is one.
  std::optional<char32_t> escaped_char(char c) {
    switch (c) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'v':
        return '\v';
      case 'f':
        return '\f';
      case 'r':
        return '\r';
      case 'a':
        return 7;
      case 'e':
        return 27;
      case 'x':
      case 'u':
        return hex_escape(c);
      default:
        if (is_alnum(c)) return std::nullopt;
        --at_;
        return next_char();
    }
  }

  // Members for \s \d \w \h \p and their opposites. `in_class`: between brackets.
  std::optional<CharSet> escaped_set(char c, bool in_class) {
    const auto negated = [](std::string_view members) {
      return CharSet{"", {"[^" + std::string(members) + "]"}};
    };
    const std::string word = std::string(kWord) + std::string(in_class ? "" : kLatinWord);
    switch (c) {
      case 's':
        return CharSet{std::string(kSpace), {}};
      case 'S':
        return CharSet{std::string(kNotSpace), {}};
      case 'd':
        return CharSet{"\\p{Nd}", {}};
      case 'D':
        return CharSet{"\\P{Nd}", {}};
      case 'w':
        return CharSet{word, {}};
      case 'W':
        return negated(word);
      case 'h':
        return CharSet{std::string(kHex), {}};
      case 'H':
        return negated(kHex);
      case 'p':
      case 'P':
        return property(c == 'P');
      default:
        return std::nullopt;
    }
  }

  // After "\p" or "\P".
  CharSet property(bool negated) {
    if (!take("{")) fail("\\p without braces");
    if (take("^")) negated = !negated;
    std::string name, written;
    while (!done() && peek() != '}') {
      const char c = in_[at_++];
      written += c;
      if (c == ' ' || c == '_' || c == '-') continue;
      if (!is_alnum(c)) fail("the property \\p{" + written);
      name += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    if (!take("}") || name.empty()) fail("a damaged \\p");
    if (name == "mn" || name == "nonspacingmark") {
      return negated ? CharSet{std::string(kNotNonspacingMark), {}}
                     : CharSet{"", {std::string(kNonspacingMark)}};
    }
    std::string members;
    if (name == "word") members = std::string(kWord) + std::string(kLatinWord);
    for (const auto& [known, value] : kProperties) {
      if (name == known) members = value;
    }
    if (std::find(std::begin(kCategories), std::end(kCategories), name) != std::end(kCategories)) {
      name[0] = static_cast<char>(name[0] - 32);
      members = "\\p{" + name + "}";
    }
    // PCRE2 would take a bare script name for its extensions as well.
    if (members.empty()) members = "\\p{sc:" + written + "}";
    if (!negated) return {members, {}};
    if (members.rfind('\\') == 0 && members[1] == 'p') {
      members[1] = 'P';
      return {members, {}};
    }
    return {"", {"[^" + members + "]"}};
  }

  Atom escape() {
    if (done()) fail("a pattern that ends in a backslash");
    const char c = in_[at_++];
    const std::string word = "[" + std::string(kWord) + std::string(kLatinWord) + "]";
    switch (c) {
      case 'A':
      case 'z':
      case 'Z':
        return {std::string("\\") + c, "", false, false};
      case 'b':
        return {"(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))", "",
                false, false};
      case 'B':
        return {"(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))", "",
                false, false};
      case 'R':
        return {R"((?>\x{d}\x{a}|[\x{a}-\x{d}\x{85}\x{2028}\x{2029}]))", ""};
      default:
        break;
    }
    if (const std::optional<CharSet> set = escaped_set(c, false)) {
      return {set->pattern(false), "", true};
    }
    if (const std::optional<char32_t> one = escaped_char(c)) return literal_atom(*one);
    fail(std::string("\\") + c);
  }

  // Inside brackets, after the backslash.
  std::optional<CharSet> class_escape(char32_t& one) {
    if (done()) fail("a pattern that ends in a backslash");
    const char c = in_[at_++];
    if (std::optional<CharSet> set = escaped_set(c, true)) return set;
    const std::optional<char32_t> value = c == 'b' ? 8 : escaped_char(c);
    if (!value) fail(std::string("\\") + c + " in a class");
    one = *value;
    return std::nullopt;
  }

  CharSet posix_class() {
    const size_t end = in_.find(":]", at_);
    if (end == std::string_view::npos) fail("[: without :]");
    std::string_view name = in_.substr(at_, end - at_);
    at_ = end + 2;
    const bool negated = !name.empty() && name[0] == '^';
    if (negated) name.remove_prefix(1);
    static constexpr std::string_view kNames[] = {"alnum", "alpha", "blank", "cntrl",  "digit",
                                                  "lower", "space", "upper", "xdigit", "ascii"};
    std::string members;
    if (name == "word") members = kWord;
    if (name == "punct") members = "\\p{P}\\p{S}";
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames)) {
      for (const auto& [known, value] : kProperties) {
        if (name == known) members = value;
      }
    }
    if (members.empty()) fail("the class [:" + std::string(name) + ":]");
    if (negated) return {"", {"[^" + members + "]"}};
    return {members, {}};
  }

  // Between brackets Oniguruma adds the other case of a class's members, PCRE2 only of characters.
  static void check_closed_under_case(const CharSet& set) {
    std::string all = set.members;
    for (const std::string& other : set.others) all += other;
    for (const char* one_case : {"{Lu}", "{Ll}", "{Lt}", "{Uppercase}", "{Lowercase}"}) {
      if (all.find(one_case) != std::string::npos) {
        fail("a class of one case without regard to case");
      }
    }
  }

  // One member of a bracket expression, or a range, added to `set`.
  void class_member(CharSet& set, int depth) {
    char32_t first = 0;
    std::optional<CharSet> sub;
    if (take("[:")) {
      sub = posix_class();
    } else if (take("[")) {
      sub = CharSet{"", {bracket(depth + 1)}};
    } else if (take("\\")) {
      sub = class_escape(first);
    } else {
      first = next_char();
    }
    if (sub) {
      if (ignores_case_) check_closed_under_case(*sub);
      set.members += sub->members;
      set.others.insert(set.others.end(), sub->others.begin(), sub->others.end());
      return;
    }
    if (ignores_case_ && folds_to_several(first)) {
      fail("a character that stands for several without regard to case");
    }
    set.members += literal(first);
    if (peek() != '-' || at_ + 1 >= in_.size() || in_[at_ + 1] == ']') return;
    ++at_;
    char32_t last = 0;
    if (peek() == '[' || in_.substr(at_, 2) == "&&") fail("a - before a nested class");
    if (take("\\")) {
      if (class_escape(last)) fail("a range that ends in a class");
    } else {
      last = next_char();
    }
    if (last < first) fail("a range whose ends are swapped");
    set.members += "-" + literal(last);
  }

  // After "[": a pattern that matches one character.
  std::string bracket(int depth) {
    if (depth > kMaxDepth) fail("classes nested too deep");
    const bool negated = take("^");
    if (peek() == ']') fail("an empty class");
    std::vector<CharSet> parts(1);  // all of which must hold: x&&y
    while (!take("]")) {
      if (done()) fail("a class without end");
      if (take("&&")) {
        parts.emplace_back();
      } else {
        class_member(parts.back(), depth);
      }
    }
    for (const CharSet& part : parts) {
      if (part.members.empty() && part.others.empty()) fail("an empty class");
    }
    if (parts.size() == 1) return parts[0].pattern(negated);
    std::string all;
    for (size_t i = 0; i + 1 < parts.size(); ++i) all += "(?=" + parts[i].pattern(false) + ")";
    all += parts.back().pattern(false);
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
  }

  std::string_view in_;
  size_t at_ = 0;
  bool ignores_case_ = false;
  char32_t last_literal_ = 0;
  size_t literal_end_ = SIZE_MAX;  // where the last literal ended, and the current atom began
  size_t at_before_ = 0;
  std::vector<Atom> top_;  // of a pattern without alternatives
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace llorch::tok
