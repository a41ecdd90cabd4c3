// The methods of str.
#include <algorithm>
#include <iterator>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

Value like(const Value& self, std::string text) {
  return Value::string(std::move(text), self.as_string().markup);
}

// An argument as the method of a Markup takes it.
std::string argument(const Value& self, const Params& p, size_t i) {
  if (!self.as_string().markup || (p[i].is_string() && p[i].as_string().markup)) return p.string(i);
  return html_escaped(p.string(i));
}

std::optional<std::string_view> optional_text(const Params& p, size_t i) {
  if (!p.given(i)) return {};
  return p.string(i);
}

Value list_of(const Value& self, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  spend_bytes(parts.size() * (sizeof(Value) + sizeof(String)));
  spend_steps(parts.size());
  items.reserve(parts.size());
  for (const auto part : parts) {
    items.push_back(Value::string(std::string(part), self.as_string().markup));
  }
  return Value::list(std::move(items));
}

template <std::string (*Map)(std::string_view)>
Value mapped(Env&, const Value& self, const Args& args) {
  const Params p("method", args, {});
  return like(self, Map(self.text()));
}

template <bool (*Is)(char32_t), bool IfEmpty>
Value all_chars(Env&, const Value& self, const Args& args) {
  const Params p("method", args, {});
  const std::string& text = self.text();
  spend_scan(text.size());
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    if (!Is(char_at(text, at))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty() || IfEmpty);
}

bool is_ascii(char32_t c) { return c < 0x80; }

// At least one cased character, and none of the other case.
template <bool (*Is)(char32_t), bool (*IsOther)(char32_t)>
Value all_cased(Env&, const Value& self, const Args& args) {
  const Params p("method", args, {});
  const std::string& text = self.text();
  spend_scan(text.size());
  bool found = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    if (IsOther(c) || is_title(c)) return Value::boolean(false);
    found |= Is(c);
  }
  return Value::boolean(found);
}

Value istitle(Env&, const Value& self, const Args& args) {
  const Params p("istitle", args, {});
  const std::string& text = self.text();
  spend_scan(text.size());
  bool found = false, within = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    if (is_upper(c) || is_title(c)) {
      if (within) return Value::boolean(false);
      within = found = true;
    } else if (is_lower(c)) {
      if (!within) return Value::boolean(false);
      found = true;
    } else {
      within = false;
    }
  }
  return Value::boolean(found);
}

Value isidentifier(Env&, const Value& self, const Args& args) {
  const Params p("isidentifier", args, {});
  return Value::boolean(is_identifier(self.text()));
}

Value strip(Env&, const Value& self, const Args& args) {
  const Params p("strip", args, {"/chars"});
  const auto chars = optional_text(p, 0);
  return like(self, std::string(strip_right(strip_left(self.text(), chars), chars)));
}

Value lstrip(Env&, const Value& self, const Args& args) {
  const Params p("lstrip", args, {"/chars"});
  return like(self, std::string(strip_left(self.text(), optional_text(p, 0))));
}

Value rstrip(Env&, const Value& self, const Args& args) {
  const Params p("rstrip", args, {"/chars"});
  return like(self, std::string(strip_right(self.text(), optional_text(p, 0))));
}

Value split_method(Env&, const Value& self, const Args& args) {
  const Params p("split", args, {"sep", "maxsplit"});
  return list_of(self, split(self.text(), optional_text(p, 0), p.integer(1, -1)));
}

Value rsplit(Env&, const Value& self, const Args& args) {
  const Params p("rsplit", args, {"sep", "maxsplit"});
  return list_of(self, split_right(self.text(), optional_text(p, 0), p.integer(1, -1)));
}

Value splitlines(Env&, const Value& self, const Args& args) {
  const Params p("splitlines", args, {"keepends"});
  return list_of(self, split_lines(self.text(), p.boolean(0, false)));
}

// The part of the text that start and stop leave, as bytes; none if start is behind the end.
std::optional<std::pair<size_t, size_t>> part(const Value& self, const Params& p, size_t first) {
  const String& s = self.as_string();
  const auto size = static_cast<int64_t>(s.chars);
  const auto index = [&](size_t i, int64_t otherwise) {
    if (!p.given(i)) return otherwise;
    const int64_t at = p.integer(i, 0);
    return at < 0 ? std::max<int64_t>(at + size, 0) : at;
  };
  const int64_t from = index(first, 0), to = std::min(index(first + 1, size), size);
  if (from > size || from > to) return {};
  if (s.ascii()) return std::pair(static_cast<size_t>(from), static_cast<size_t>(to));
  spend_bytes(s.text.size());
  return std::pair(offset_of_char(s.text, static_cast<size_t>(from)),
                   offset_of_char(s.text, static_cast<size_t>(to)));
}

template <bool Right, bool MustBe>
Value find_method_of(Env&, const Value& self, const Args& args) {
  const Params p("find", args, {"/sub", "/start", "/end"}, 1);
  const std::string& what = p.string(0);
  const auto range = part(self, p, 1);
  size_t at = std::string::npos;
  const std::string_view text = self.text();
  if (range) {
    const auto piece = text.substr(range->first, range->second - range->first);
    at = Right ? find_last(piece, what) : find_text(piece, what);
    if (at != piece.npos) at += range->first;
  }
  if (at == std::string::npos) {
    if (MustBe) throw Failure("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(
      static_cast<int64_t>(self.as_string().ascii() ? at : count_chars(text.substr(0, at))));
}

Value count(Env&, const Value& self, const Args& args) {
  const Params p("count", args, {"/sub", "/start", "/end"}, 1);
  const std::string& what = p.string(0);
  const auto range = part(self, p, 1);
  if (!range) return Value::integer(0);
  const auto piece =
      std::string_view(self.text()).substr(range->first, range->second - range->first);
  if (what.empty()) return Value::integer(static_cast<int64_t>(count_chars(piece)) + 1);
  int64_t n = 0;
  for (size_t at = find_text(piece, what); at != piece.npos;
       at = find_text(piece, what, at + what.size())) {
    ++n;
  }
  return Value::integer(n);
}

template <bool End>
Value starts_or_ends(Env&, const Value& self, const Args& args) {
  const Params p(End ? "endswith" : "startswith", args, {"/prefix", "/start", "/end"}, 1);
  const auto range = part(self, p, 1);
  const auto matches = [&](const Value& v) {
    if (!v.is_string()) {
      throw Failure(std::string(End ? "endswith" : "startswith") +
                    " first arg must be str or a tuple of str, not " + type_name(v));
    }
    if (!range) return false;
    const auto piece =
        std::string_view(self.text()).substr(range->first, range->second - range->first);
    spend_scan(std::min(piece.size(), v.text().size()) / 16);
    return End ? piece.ends_with(v.text()) : piece.starts_with(v.text());
  };
  if (!p[0].is(Type::kTuple)) return Value::boolean(matches(p[0]));
  const auto& all = p[0].items();
  return Value::boolean(std::any_of(all.begin(), all.end(), matches));
}

Value replace_method(Env&, const Value& self, const Args& args) {
  const Params p("replace", args, {"/old", "/new", "/count"}, 2);
  const int64_t limit = p.integer(2, -1);
  return like(self, replace(self.text(), argument(self, p, 0), argument(self, p, 1), limit));
}

Value join(Env&, const Value& self, const Args& args) {
  const Params p("join", args, {"/iterable"}, 1);
  const auto items = to_vector(p[0]);
  const bool markup = self.as_string().markup;
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string() && !markup) {
      throw Failure("sequence item " + std::to_string(i) + ": expected str instance, " +
                    type_name(items[i]) + " found");
    }
    const bool safe = items[i].is_string() && (!markup || items[i].as_string().markup);
    const std::string piece = safe ? items[i].text() : html_escaped(to_text(items[i]));
    spend_bytes(piece.size() + self.text().size());
    if (i > 0) out += self.text();
    out += piece;
  }
  return Value::string(std::move(out), markup);
}

template <bool Left, bool Right>
Value pad(Env&, const Value& self, const Args& args) {
  const Params p("ljust", args, {"/width", "/fillchar"}, 1);
  const String& s = self.as_string();
  const int64_t missing = p.integer(0, 0) - static_cast<int64_t>(s.chars);
  const std::string fill = p.has(1) ? argument(self, p, 1) : " ";
  if (count_chars(fill) != 1)
    throw Failure("The fill character must be exactly one character long");
  if (missing <= 0) return self;
  const auto n = static_cast<uint64_t>(missing);
  check_fits(n);
  check_fits(n * fill.size());
  // Where both sides are filled, the odd one goes left only if the width is odd too.
  const uint64_t left = !Left    ? 0
                        : !Right ? n
                                 : n / 2 + (n & static_cast<uint64_t>(p.integer(0, 0)) & 1);
  std::string out;
  for (uint64_t i = 0; i < left; ++i) out += fill;
  out += s.text;
  for (uint64_t i = left; i < n; ++i) out += fill;
  return like(self, std::move(out));
}

Value zfill(Env&, const Value& self, const Args& args) {
  const Params p("zfill", args, {"/width"}, 1);
  const String& s = self.as_string();
  const int64_t missing = p.integer(0, 0) - static_cast<int64_t>(s.chars);
  if (missing <= 0) return self;
  check_fits(static_cast<uint64_t>(missing));
  const bool sign = !s.text.empty() && (s.text[0] == '-' || s.text[0] == '+');
  return like(self, s.text.substr(0, sign ? 1 : 0) +
                        std::string(static_cast<size_t>(missing), '0') +
                        s.text.substr(sign ? 1 : 0));
}

template <bool Right>
Value partition(Env&, const Value& self, const Args& args) {
  const Params p("partition", args, {"/sep"}, 1);
  const std::string& separator = p.string(0);
  if (separator.empty()) throw Failure("empty separator");
  const std::string& text = self.text();
  const size_t at = Right ? find_last(text, separator) : find_text(text, separator);
  const bool markup = self.as_string().markup;
  const auto make = [markup](std::string t) { return Value::string(std::move(t), markup); };
  if (at == text.npos) {
    return Right ? Value::tuple({make(""), make(""), self})
                 : Value::tuple({self, make(""), make("")});
  }
  return Value::tuple(
      {make(text.substr(0, at)), make(separator), make(text.substr(at + separator.size()))});
}

Value removeprefix(Env&, const Value& self, const Args& args) {
  const Params p("removeprefix", args, {"/prefix"}, 1);
  if (!self.text().starts_with(p.string(0))) return self;
  return like(self, self.text().substr(p.string(0).size()));
}

Value removesuffix(Env&, const Value& self, const Args& args) {
  const Params p("removesuffix", args, {"/suffix"}, 1);
  if (p.string(0).empty() || !self.text().ends_with(p.string(0))) return self;
  return like(self, self.text().substr(0, self.text().size() - p.string(0).size()));
}

Value expandtabs(Env&, const Value& self, const Args& args) {
  const Params p("expandtabs", args, {"tabsize"});
  const int64_t size = p.integer(0, 8);
  std::string out;
  int64_t column = 0;
  const std::string& text = self.text();
  spend_scan(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t n = char_bytes(text, at);
    if (text[at] == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      check_fits(out.size() + static_cast<uint64_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out.append(text, at, n);
      column = text[at] == '\n' || text[at] == '\r' ? 0 : column + 1;
    }
    at += n;
  }
  return like(self, std::move(out));
}

Value format(Env&, const Value& self, const Args& args) {
  return like(self, brace_format(self.text(), args, self.as_string().markup));
}

Value format_map(Env&, const Value& self, const Args& args) {
  if (!args.named.empty()) throw Failure("format_map() takes no keyword arguments");
  if (args.positional.size() != 1) throw Failure("format_map() takes exactly one argument");
  Args mapped;
  if (args.positional[0].is(Type::kDict)) {
    for (const auto& [key, value] : args.positional[0].as_dict().entries) {
      spend_steps(1);
      if (key.is_string()) mapped.named.emplace_back(key.text(), value);
    }
  }
  return like(self, brace_format(self.text(), mapped, self.as_string().markup));
}

// bytes and tables are no values here.
Value refused(Env&, const Value&, const Args&) { throw Failure("this method is not supported"); }

struct Entry {
  std::string_view name;
  Method method;
};

constexpr Entry kMethods[] = {
    {"capitalize", mapped<capitalize>},
    {"casefold", mapped<casefold>},
    {"center", pad<true, true>},
    {"count", count},
    {"encode", refused},
    {"endswith", starts_or_ends<true>},
    {"expandtabs", expandtabs},
    {"find", find_method_of<false, false>},
    {"format", format},
    {"format_map", format_map},
    {"index", find_method_of<false, true>},
    {"isalnum", all_chars<is_alnum, false>},
    {"isalpha", all_chars<is_alpha, false>},
    {"isascii", all_chars<is_ascii, true>},
    {"isdecimal", all_chars<is_decimal, false>},
    {"isdigit", all_chars<is_digit, false>},
    {"isidentifier", isidentifier},
    {"islower", all_cased<is_lower, is_upper>},
    {"isnumeric", all_chars<is_numeric, false>},
    {"isprintable", all_chars<is_printable, true>},
    {"isspace", all_chars<is_space, false>},
    {"istitle", istitle},
    {"isupper", all_cased<is_upper, is_lower>},
    {"join", join},
    {"ljust", pad<false, true>},
    {"lower", mapped<lower>},
    {"lstrip", lstrip},
    {"maketrans", refused},
    {"partition", partition<false>},
    {"removeprefix", removeprefix},
    {"removesuffix", removesuffix},
    {"replace", replace_method},
    {"rfind", find_method_of<true, false>},
    {"rindex", find_method_of<true, true>},
    {"rjust", pad<true, false>},
    {"rpartition", partition<true>},
    {"rsplit", rsplit},
    {"rstrip", rstrip},
    {"split", split_method},
    {"splitlines", splitlines},
    {"startswith", starts_or_ends<false>},
    {"strip", strip},
    {"swapcase", mapped<swapcase>},
    {"title", mapped<title>},
    {"translate", refused},
    {"upper", mapped<upper>},
    {"zfill", zfill},
};

}  // namespace

Method find_string_method(std::string_view name) {
  const auto at = std::lower_bound(std::begin(kMethods), std::end(kMethods), name,
                                   [](const Entry& e, std::string_view n) { return e.name < n; });
  return at != std::end(kMethods) && at->name == name ? at->method : nullptr;
}

}  // namespace llorch::tmpl
