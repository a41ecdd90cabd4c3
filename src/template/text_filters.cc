// Filters that make text.
#include <algorithm>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

bool is_markup(const Value& v) { return v.is_string() && v.as_string().markup; }

// soft_str: a Markup stays one.
Value soft(const Value& v) { return v.is_string() ? v : Value::string(to_text(v)); }

Value like(const Value& source, std::string text) {
  return Value::string(std::move(text), is_markup(source));
}

template <std::string (*Map)(std::string_view)>
Value mapped(Env&, const Value& v, const Args& args) {
  const Params p("filter", args, {});
  const Value s = soft(v);
  return like(s, Map(s.text()));
}

// Words begin after a space, a hyphen or an opening bracket.
std::string title_words(std::string_view text) {
  spend_scan(text.size());
  const auto separates = [](char32_t c) {
    return c == '-' || is_space(c) || c == '(' || c == '{' || c == '[' || c == '<';
  };
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    const bool separator = separates(char_at(text, at));
    while (end < text.size() && separates(char_at(text, end)) == separator) {
      end += char_bytes(text, end);
    }
    const size_t first = char_bytes(text, at);
    out += upper(text.substr(at, first));
    out += lower(text.substr(at + first, end - at - first));
    at = end;
  }
  return out;
}

Value trim(Env&, const Value& v, const Args& args) {
  const Params p("trim", args, {"chars"});
  const Value s = soft(v);
  std::optional<std::string_view> chars;
  if (p.given(0)) chars = p.string(0);
  return like(s, std::string(strip_right(strip_left(s.text(), chars), chars)));
}

Value replace_filter(Env& env, const Value& v, const Args& args) {
  const Params p("replace", args, {"old", "new", "count"}, 2);
  const int64_t limit = p.given(2) ? p.integer(2, -1) : -1;
  if (!env.autoescape) {
    const std::string text = to_text(v);
    spend_bytes(text.size());
    std::string out = replace(text, p.text(0), p.text(1), limit);
    spend_bytes(out.size());
    return Value::string(std::move(out));
  }
  Value s = soft(v);
  if ((is_markup(p[0]) || is_markup(p[1])) && !is_markup(v)) {
    s = Value::string(html_escaped(s.text()), true);
  }
  const auto argument = [&](size_t i) {
    return is_markup(s) && !is_markup(p[i]) ? html_escaped(p.text(i)) : p.text(i);
  };
  return like(s, replace(s.text(), argument(0), argument(1), limit));
}

Value string_filter(Env&, const Value& v, const Args& args) {
  const Params p("string", args, {});
  Value s = soft(v);
  spend_bytes(s.text().size());
  return s;
}

Value escape(Env&, const Value& v, const Args& args) {
  const Params p("escape", args, {});
  if (is_markup(v)) return v;
  std::string out = html_escaped(to_text(v));
  spend_bytes(out.size());
  return Value::string(std::move(out), true);
}

Value forceescape(Env&, const Value& v, const Args& args) {
  const Params p("forceescape", args, {});
  std::string out = html_escaped(to_text(v));
  spend_bytes(out.size());
  return Value::string(std::move(out), true);
}

Value safe(Env&, const Value& v, const Args& args) {
  const Params p("safe", args, {});
  return Value::string(to_text(v), true);
}

Value center(Env& env, const Value& v, const Args& args) {
  const Params p("center", args, {"width"});
  const Value s = soft(v);
  return find_string_method("center")(env, s, {{Value::integer(p.integer(0, 80))}, {}});
}

Value indent(Env&, const Value& v, const Args& args) {
  const Params p("indent", args, {"width", "first", "blank"});
  if (v.is_undefined()) throw Failure(v.text());
  if (!v.is_string()) {
    throw Failure(std::string("unsupported operand type(s) for +=: '") + type_name(v) +
                  "' and 'str'");
  }
  std::string prefix;
  if (p.has(0) && p[0].is_string()) {
    prefix = p[0].text();
  } else {
    const auto width = static_cast<uint64_t>(std::max<int64_t>(p.integer(0, 4), 0));
    check_fits(width);
    prefix.assign(width, ' ');
  }
  if (is_markup(v) && !(p.has(0) && is_markup(p[0]))) prefix = html_escaped(prefix);
  const std::string text = v.text() + "\n";
  const auto lines = split_lines(text, false);
  spend_bytes(text.size() + lines.size() * sizeof(std::string_view));
  const bool blank = p.boolean(2, false);
  std::string out = p.boolean(1, false) ? prefix : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out += '\n';
      if (blank || !lines[i].empty()) {
        check_fits(out.size() + prefix.size());
        out += prefix;
      }
    }
    out += lines[i];
  }
  return like(v, std::move(out));
}

Value truncate(Env&, const Value& v, const Args& args) {
  const Params p("truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t length = p.integer(0, 255), leeway = p.given(3) ? p.integer(3, 5) : 5;
  const std::string end = p.has(2) ? p.string(2) : "...";
  const auto end_chars = static_cast<int64_t>(count_chars(end));
  if (length < end_chars) {
    throw Failure("expected length >= " + std::to_string(end_chars) + ", got " +
                  std::to_string(length));
  }
  if (leeway < 0) throw Failure("expected leeway >= 0, got " + std::to_string(leeway));
  const int64_t size = length_of(v);
  if (size <= length || size - length <= leeway) return v;
  if (!v.is_string()) throw Failure("truncate expects a str");
  std::string_view kept = v.text();
  kept = kept.substr(0, offset_of_char(kept, static_cast<size_t>(length - end_chars)));
  if (!p.boolean(1, false)) kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  return like(v, std::string(kept) + end);
}

Value wordcount(Env&, const Value& v, const Args& args) {
  const Params p("wordcount", args, {});
  const std::string text = to_text(v);
  spend_bytes(text.size());
  spend_scan(text.size());
  int64_t words = 0;
  bool within = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const bool word = is_word(char_at(text, at));
    words += word && !within;
    within = word;
  }
  return Value::integer(words);
}

Value format_filter(Env&, const Value& v, const Args& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    throw Failure("can't handle positional and keyword arguments at the same time");
  }
  const Value s = soft(v);
  Value arguments = Value::tuple(args.positional);
  if (!args.named.empty()) {
    auto d = std::make_shared<Dict>();
    for (const auto& [key, value] : args.named) d->set(Value::string(key), value);
    arguments = Value::dict(std::move(d));
  }
  return like(s, percent_format(s.text(), arguments, is_markup(s)));
}

Value tojson(Env&, const Value& v, const Args& args) {
  const Params p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = p.boolean(0, false);
  style.sort_keys = p.boolean(3, false);
  if (p.given(1)) {
    if (p[1].is_string()) {
      style.indent = p[1].text();
    } else {
      const auto n = static_cast<uint64_t>(std::max<int64_t>(p.integer(1, 0), 0));
      check_fits(n);
      style.indent = std::string(n, ' ');
    }
    style.item_separator = ",";
  }
  if (p.given(2)) {
    const auto both = to_vector(p[2]);
    if (both.size() != 2 || !both[0].is_string() || !both[1].is_string()) {
      throw Failure("separators must be two texts");
    }
    style.item_separator = both[0].text();
    style.key_separator = both[1].text();
  }
  return Value::string(to_json(v, style));
}

void append_quoted(std::string& out, const Value& v, bool query) {
  const std::string text = to_text(v);
  spend_bytes(text.size() * 3);
  spend_scan(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 &&
        (is_alnum(byte) || std::string_view("_.-~").find(c) != std::string_view::npos ||
         (c == '/' && !query))) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      out += '%';
      out += "0123456789ABCDEF"[byte >> 4];
      out += "0123456789ABCDEF"[byte & 15];
    }
  }
}

Value urlencode(Env&, const Value& v, const Args& args) {
  const Params p("urlencode", args, {});
  std::string out;
  if (v.is_string() || !is_iterable(v)) {
    append_quoted(out, v, false);
    return Value::string(std::move(out));
  }
  Value pairs = v;
  if (v.is(Type::kDict)) {
    pairs = Value::object(Type::kView, std::make_shared<View>(v, View::Kind::kItems));
  }
  for (const Value& pair : to_vector(pairs)) {
    const auto both = to_vector(pair);
    if (both.size() != 2) throw Failure("not a pair to unpack");
    if (!out.empty()) out += '&';
    append_quoted(out, both[0], true);
    out += '=';
    append_quoted(out, both[1], true);
  }
  return Value::string(std::move(out));
}

Value xmlattr(Env& env, const Value& v, const Args& args) {
  const Params p("xmlattr", args, {"autospace"});
  if (!v.is(Type::kDict)) {
    throw Failure(std::string("'") + type_name(v) + "' object has no attribute 'items'");
  }
  std::string out;
  for (const auto& [key, value] : v.as_dict().entries) {
    if (value.is(Type::kNone) || value.is_undefined()) continue;
    if (!key.is_string()) throw Failure("expected string or bytes-like object");
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      throw Failure("Invalid character in attribute name: " + repr(key));
    }
    const auto escaped = [](const Value& t) {
      return is_markup(t) ? t.text() : html_escaped(to_text(t));
    };
    if (!out.empty()) out += ' ';
    out += escaped(key) + "=\"" + escaped(value) + "\"";
  }
  if (p.boolean(0, true) && !out.empty()) out.insert(0, " ");
  spend_bytes(out.size());
  return Value::string(std::move(out), env.autoescape);
}

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr Entry kFilters[] = {
    {"capitalize", mapped<capitalize>},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"forceescape", forceescape},
    {"format", format_filter},
    {"indent", indent},
    {"lower", mapped<lower>},
    {"replace", replace_filter},
    {"safe", safe},
    {"string", string_filter},
    {"title", mapped<title_words>},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", mapped<upper>},
    {"urlencode", urlencode},
    {"wordcount", wordcount},
    {"xmlattr", xmlattr},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
  for (const Entry& e : kFilters) {
    if (e.name == name) return e.filter;
  }
  return nullptr;
}

}  // namespace llorch::tmpl
