// One JSON object a line on stdout (contract, section 3). Below the engine nobody logs: they throw.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace llorch {

enum class Level { kDebug, kInfo, kWarn, kError };

// A field of a log line. Never prompt or completion text.
struct Field {
  using Value = std::variant<std::string, int64_t, uint64_t, double, bool>;

  Field(std::string_view k, std::string_view v) : key(k), value(std::string(v)) {}
  Field(std::string_view k, const char* v) : key(k), value(std::string(v)) {}
  Field(std::string_view k, const std::string& v) : key(k), value(v) {}
  template <class T>
  requires std::is_arithmetic_v<T> Field(std::string_view k, T v) : key(k), value(widen(v)) {}

  std::string_view key;
  Value value;

 private:
  template <class T>
  static Value widen(T v) {
    if constexpr (std::is_same_v<T, bool>) {
      return Value(std::in_place_type<bool>, v);
    } else if constexpr (std::is_floating_point_v<T>) {
      return Value(std::in_place_type<double>, static_cast<double>(v));
    } else if constexpr (std::is_signed_v<T>) {
      return Value(std::in_place_type<int64_t>, v);
    } else {
      return Value(std::in_place_type<uint64_t>, v);
    }
  }
};

// Sets what every line carries and how it looks; call once, before other threads log.
void start_logging(const std::string& worker_id, bool json, Level least);

// Writes one line; safe from any thread, never throws. Fields with an empty string are kept.
void log(Level level, std::string_view event, std::initializer_list<Field> fields = {});

// RFC 3339 in UTC with microseconds.
std::string rfc3339(std::chrono::system_clock::time_point at);
std::string rfc3339_now();

// The same line as text, without writing it: a failed start prints it on stderr too.
std::string log_line(Level level, std::string_view event, std::initializer_list<Field> fields);

}  // namespace llorch
