// The functions that a template finds without defining them.
#include <chrono>
#include <ctime>

#include "base/os.h"
#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

Value range(Env&, const Args& args) {
  const Params p("range", args, {"/start", "/stop", "/step"}, 1);
  for (size_t i = 0; i < 3; ++i) {
    if (p.has(i) && p[i].is(Type::kBigInt))
      throw Failure("Range too big: it needs more than 64 bits");
  }
  const int64_t first = p.integer(0, 0);
  const int64_t start = p.has(1) ? first : 0, stop = p.has(1) ? p.integer(1, 0) : first;
  const int64_t step = p.integer(2, 1);
  if (step == 0) throw Failure("range() arg 3 must not be zero");
  auto r = std::make_shared<Range>(start, stop, step);
  constexpr int64_t kMostItems = 100'000;  // the sandbox's
  if (r->length > kMostItems) {
    throw Failure("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  return Value::object(Type::kRange, std::move(r));
}

// dict(mapping or pairs, name=value, ...)
std::shared_ptr<Dict> make_dict(const Args& args) {
  auto d = std::make_shared<Dict>();
  if (args.positional.size() > 1) {
    throw Failure("dict expected at most 1 argument, got " +
                  std::to_string(args.positional.size()));
  }
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_undefined()) throw Failure(from.text());
    if (from.is(Type::kDict)) {
      for (const auto& [key, value] : from.as_dict().entries) {
        spend_steps(1);
        spend_bytes(2 * sizeof(Value));
        d->set(key, value);
      }
    } else {
      for (const Value& pair : to_vector(from)) {
        const auto both = to_vector(pair);
        if (both.size() != 2) throw Failure("dictionary update sequence element is no pair");
        spend_bytes(2 * sizeof(Value));
        d->set(both[0], both[1]);
      }
    }
  }
  for (const auto& [key, value] : args.named) d->set(Value::string(key), value);
  return d;
}

// The global `dict`: what is called, and its one method.
struct DictMaker : Thing {
  const char* kind() const override { return "TemplateDict"; }
  Value attribute(std::string_view name) override {
    if (name != "fromkeys") return Value();
    return function("fromkeys", [](Env& env, const Args& args) {
      const Value empty = Value::dict(std::make_shared<Dict>());
      return find_method(empty, "fromkeys")(env, empty, args);
    });
  }
  Value call(Env&, const Args& args) override { return Value::dict(make_dict(args)); }
};

Value make_namespace(Env& env, const Args& args) {
  spend_bytes(sizeof(Namespace));
  auto ns = std::make_shared<Namespace>();
  const auto given = make_dict(args);
  for (auto& [key, value] : given->entries) {
    if (key.is_string() && key.text().starts_with("_")) {
      throw Failure("Chat templates cannot store underscore-prefixed attributes on a namespace");
    }
    ns->attributes.set(key, value);
  }
  env.own(ns);
  return Value::object(Type::kNamespace, std::move(ns));
}

struct Cycler : Thing {
  const char* kind() const override { return "Cycler"; }
  Value attribute(std::string_view name) override {
    if (name == "current") return items[at];
    if (name == "pos") return Value::integer(static_cast<int64_t>(at));
    if (name == "items") return Value::tuple(items);
    if (name != "next" && name != "reset") return Value();
    return function(std::string(name), [this, next = name == "next"](Env&, const Args& args) {
      const Params p("next", args, {});
      if (!next) {
        at = 0;
        return Value::none();
      }
      const Value v = items[at];
      at = (at + 1) % items.size();
      return v;
    });
  }
  std::vector<Value> items;
  size_t at = 0;
};

Value make_cycler(Env&, const Args& args) {
  if (!args.named.empty()) throw Failure("cycler() got an unexpected keyword argument");
  if (args.positional.empty()) throw Failure("at least one item has to be provided");
  auto c = std::make_shared<Cycler>();
  c->items = args.positional;
  return Value::object(Type::kObject, std::move(c));
}

struct Joiner : Thing {
  const char* kind() const override { return "joiner"; }
  Value attribute(std::string_view name) override {
    if (name == "sep") return separator;
    if (name == "used") return Value::boolean(used);
    return Value();
  }
  Value call(Env&, const Args& args) override {
    const Params p("joiner", args, {});
    if (used) return separator;
    used = true;
    return Value::string("");
  }
  Value separator;
  bool used = false;
};

Value make_joiner(Env&, const Args& args) {
  const Params p("joiner", args, {"sep"});
  auto j = std::make_shared<Joiner>();
  j->separator = p.has(0) ? p[0] : Value::string(", ");
  return Value::object(Type::kObject, std::move(j));
}

Value raise_exception(Env&, const Args& args) {
  const Params p("raise_exception", args, {"message"}, 1);
  throw Failure(to_text(p[0]));
}

Value lipsum(Env&, const Args&) { throw Failure("lipsum() is not supported"); }

// datetime.now().strftime(format): local time without a zone.
Value strftime_now(Env&, const Args& args) {
  const Params p("strftime_now", args, {"format"}, 1);
  const std::string& given = p.string(0);
  constexpr size_t kMostFormat = 4096;
  if (given.size() > kMostFormat) throw Failure("the format is too long");
  const auto now = std::chrono::system_clock::now();
  const std::tm time = os::local_time(std::chrono::system_clock::to_time_t(now));
  std::string format;
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] == '\0') throw Failure("embedded null character");
    if (given[i] != '%' || i + 1 == given.size()) {
      format += given[i];
      continue;
    }
    const char what = given[++i];
    if (what == 'f') {
      const auto since = now.time_since_epoch();
      const auto us =
          std::chrono::duration_cast<std::chrono::microseconds>(since).count() % 1000000;
      const std::string digits = std::to_string(us);
      format += std::string(6 - digits.size(), '0') + digits;
    } else if (what != 'z' && what != 'Z') {
      format += '%';
      format += what;
    }
  }
  if (format.empty()) return Value::string("");
  // strftime answers 0 both where the room ends and where there is nothing to write.
  format += ' ';
  std::string out(format.size() * 64 + 64, '\0');
  const size_t n = std::strftime(out.data(), out.size(), format.c_str(), &time);
  if (n == 0) throw Failure("the format is too long");
  out.resize(n - 1);
  spend_bytes(out.size());
  if (!is_valid_text(out)) throw Failure("the format is not text");
  return Value::string(std::move(out));
}

}  // namespace

std::vector<std::pair<std::string, Value>> globals() {
  return {{"range", function("range", range)},
          {"dict", Value::object(Type::kObject, std::make_shared<DictMaker>())},
          {"lipsum", function("lipsum", lipsum)},
          {"cycler", function("cycler", make_cycler)},
          {"joiner", function("joiner", make_joiner)},
          {"namespace", function("namespace", make_namespace)},
          {"raise_exception", function("raise_exception", raise_exception)},
          {"strftime_now", function("strftime_now", strftime_now)}};
}

}  // namespace llorch::tmpl
