// One JSON object a line on stdout (contract, section 3). Below the engine nobody logs: they throw.
// A thread of its own writes, so that nobody waits for who reads stdout: if that is slow or the
// disk is full, up to 1 MiB of lines wait, and a `log_lines_lost` line tells how many found no
// room.
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

// Sets what every line carries and how it looks; to be called before the first line.
void start_logging(const std::string& worker_id, bool json, Level least);

// Logs one line; safe from any thread, never waits for the output. Fields with an empty string are
// kept.
void log(Level level, std::string_view event, std::initializer_list<Field> fields = {}) noexcept;
// The same for what log_line() gave.
void log_ready_line(std::string line);
// True once all lines have left; to be called before an exit that runs no handlers of
// std::atexit().
bool flush_log(std::chrono::milliseconds timeout);

// RFC 3339 in UTC with microseconds.
std::string rfc3339(std::chrono::system_clock::time_point at);
std::string rfc3339_now();

// The same line as text, without writing it: a failed start prints it on stderr too.
std::string log_line(Level level, std::string_view event, std::initializer_list<Field> fields);

}  // namespace llorch
