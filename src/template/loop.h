// The `loop` of a for statement.
#pragma once

#include <functional>
#include <optional>

#include "template/runtime.h"

namespace llorch::tmpl {

struct Loop : Object {
  // Renders the body over another iterable, one level deeper; null if the loop is not recursive.
  using Recurse = std::function<Value(const Value& iterable, int depth0)>;
  Loop(const Value& iterable, int depth0, Recurse recurse);

  bool next(Value& item);
  bool next_pair(const Value& self, Value& item);  // (item, loop), as iterating over a loop gives
  int64_t length();
  Value attribute(const Value& self, std::string_view name);
  Value call(const Args& args);

  int64_t index0 = -1;

 private:
  const Value& peek();  // missing at the end

  Value iterable_;
  Items items_;
  std::optional<int64_t> length_;
  bool peeked_ = false;
  Value after_, current_, before_;
  std::optional<std::vector<Value>> last_changed_;
  int depth0_;
  Recurse recurse_;
};

}  // namespace llorch::tmpl
