// JSON to values and back, as Python's json module does it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

// Builds values without a tree of nlohmann's in between, which would lose the form of numbers.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Value::none()); }
  bool boolean(bool v) override { return add(Value::boolean(v)); }
  bool number_integer(number_integer_t v) override { return add(Value::integer(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<number_unsigned_t>(INT64_MAX)) {
      return add(Value::big_integer(std::to_string(v)));
    }
    return add(Value::integer(static_cast<int64_t>(v)));
  }
  bool number_float(number_float_t v, const string_t& text) override {
    if (text.find_first_of(".eE") != text.npos) return add(Value::number(v));
    constexpr size_t kMostDigits = 4300;  // Python's
    if (text.size() > kMostDigits) return fail("an integer is too long");
    return add(Value::big_integer(text));
  }
  bool string(string_t& v) override { return add(Value::string(std::move(v))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(true); }
  bool key(string_t& v) override {
    open_.back().key = Value::string(std::move(v));
    return true;
  }
  bool end_object() override {
    const auto d = open_.back().dict;
    open_.pop_back();
    return add(Value::dict(d));
  }
  bool start_array(std::size_t) override { return open(false); }
  bool end_array() override {
    auto items = std::move(open_.back().items);
    open_.pop_back();
    return add(Value::list(std::move(items)));
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    return fail(e.what());
  }

  Value value;
  std::string error = "not JSON";

 private:
  struct Open {
    std::shared_ptr<Dict> dict;
    Value key;
    std::vector<Value> items;
  };

  bool fail(std::string what) {
    error = std::move(what);
    return false;
  }

  bool open(bool dict) {
    constexpr size_t kMostNesting = 200;
    if (open_.size() >= kMostNesting) return fail("nested too deeply");
    open_.push_back({dict ? std::make_shared<Dict>() : nullptr, Value(), {}});
    return true;
  }

  bool add(Value v) {
    if (open_.empty()) {
      value = std::move(v);
    } else if (open_.back().dict != nullptr) {
      open_.back().dict->set(open_.back().key, std::move(v));
    } else {
      open_.back().items.push_back(std::move(v));
    }
    return true;
  }

  std::vector<Open> open_;
};

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& v) {
    check_fits(out.size());
    spend_steps(1);
    switch (v.type()) {
      case Type::kNone:
        out += "null";
        return;
      case Type::kBool:
        out += v.as_bool() ? "true" : "false";
        return;
      case Type::kInt:
      case Type::kBigInt:
        out += to_text(v);
        return;
      case Type::kFloat:
        out += number(v.as_float());
        return;
      case Type::kString:
        return write_text(v.text());
      case Type::kList:
      case Type::kTuple:
        return write_list(v.items());
      case Type::kDict:
        return write_dict(v.as_dict());
      default:
        throw Failure(std::string("Object of type ") + type_name(v) + " is not JSON serializable");
    }
  }

  std::string out;

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return float_repr(d);
  }

  void line() {
    if (!style_.indent) return;
    check_fits(out.size() + style_.indent->size() * depth_);
    out += '\n';
    for (size_t i = 0; i < depth_; ++i) out += *style_.indent;
  }

  template <class Items, class Write>
  void write_all(const Items& items, const char* ends, Write write_item) {
    out += ends[0];
    if (!items.empty()) {
      ++depth_;
      bool first = true;
      for (const auto& item : items) {
        if (!first) out += style_.item_separator;
        first = false;
        line();
        write_item(item);
      }
      --depth_;
      line();
    }
    out += ends[1];
  }

  void write_list(const std::vector<Value>& items) {
    write_all(items, "[]", [this](const Value& v) { write(v); });
  }

  void write_dict(const Dict& d) {
    std::vector<std::pair<Value, Value>> sorted;
    if (style_.sort_keys) {
      sorted = d.entries;
      std::stable_sort(sorted.begin(), sorted.end(),
                       [](const auto& a, const auto& b) { return less(a.first, b.first); });
    }
    write_all(style_.sort_keys ? sorted : d.entries, "{}", [this](const auto& entry) {
      write_key(entry.first);
      out += style_.key_separator;
      write(entry.second);
    });
  }

  void write_key(const Value& key) {
    switch (key.type()) {
      case Type::kString:
        return write_text(key.text());
      case Type::kNone:
        return write_text("null");
      case Type::kBool:
        return write_text(key.as_bool() ? "true" : "false");
      case Type::kInt:
      case Type::kBigInt:
        return write_text(to_text(key));
      case Type::kFloat:
        return write_text(number(key.as_float()));
      default:
        throw Failure(std::string("keys must be str, int, float, bool or None, not ") +
                      type_name(key));
    }
  }

  void escape(unsigned unit) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "\\u%04x", unit);
    out += buffer;
  }

  void write_text(std::string_view text) {
    spend_scan(text.size());
    check_fits(out.size() + text.size());
    out += '"';
    for (size_t at = 0; at < text.size();) {
      const auto c = static_cast<unsigned char>(text[at]);
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
      if (const size_t known = kFrom.find(text[at]); known != kFrom.npos) {
        out += '\\';
        out += kTo[known];
      } else if (c < 0x20) {
        escape(c);
      } else if (c >= 0x80 && style_.ensure_ascii) {
        const char32_t code = char_at(text, at);
        if (code < 0x10000) {
          escape(static_cast<unsigned>(code));
        } else {
          escape(static_cast<unsigned>(0xD800 + ((code - 0x10000) >> 10)));
          escape(static_cast<unsigned>(0xDC00 + ((code - 0x10000) & 0x3FF)));
        }
        at += char_bytes(text, at);
        continue;
      } else {
        out += text[at];
      }
      ++at;
    }
    out += '"';
  }

  const JsonStyle& style_;
  size_t depth_ = 0;
};

}  // namespace

std::string to_json(const Value& v, const JsonStyle& style) {
  Writer writer(style);
  writer.write(v);
  spend_bytes(writer.out.size());
  return std::move(writer.out);
}

Value from_json(std::string_view text, const std::string& what) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text, &builder)) {
    throw Error(ErrorCode::kBadRequest, what + ": " + builder.error);
  }
  return builder.value;
}

}  // namespace llorch::tmpl
