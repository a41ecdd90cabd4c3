#include "base/log.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/line_queue.h"
#include "base/memory_reserve.h"
#include "base/os.h"

namespace llorch {
namespace {

constexpr size_t kMostWaitingBytes = 1 << 20;
constexpr std::chrono::milliseconds kFlushAtExit{500};

struct State {
  std::string worker_id;
  bool json = true;
  Level least = Level::kInfo;
};

// Never destroyed: the queue's thread may outlive main().
State& state() {
  static State& state = *new State;
  return state;
}

const char* name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarn:
      return "warn";
    case Level::kError:
      return "error";
  }
  return "info";
}

std::string pretty_line(Level level, std::string_view event, std::initializer_list<Field> fields) {
  std::string line = rfc3339_now().substr(11) + ' ' + name(level) + ' ' + std::string(event);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    line += std::visit(
        [](const auto& v) {
          return nlohmann::json(v).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        },
        field.value);
  }
  return line;
}

std::string line_of(Level level, std::string_view event, std::initializer_list<Field> fields) {
  return state().json ? log_line(level, event, fields) : pretty_line(level, event, fields);
}

// Made with the first line, and never destroyed: its thread may be stuck in a write for good.
LineQueue& queue() {
  static LineQueue& queue = *new LineQueue(
      kMostWaitingBytes, [](std::string_view bytes) { return os::write_stdout(bytes); },
      [](uint64_t lost) {
        return line_of(Level::kWarn, "log_lines_lost", {{"lines", lost}});
      });
  [[maybe_unused]] static const int registered = std::atexit([] { flush_log(kFlushAtExit); });
  return queue;
}

}  // namespace

std::string rfc3339(std::chrono::system_clock::time_point at) {
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(micros / 1'000'000);
  std::tm utc{};
#ifdef _WIN32
  gmtime_s(&utc, &seconds);
#else
  gmtime_r(&seconds, &utc);
#endif
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     micros % 1'000'000);
}

std::string rfc3339_now() { return rfc3339(std::chrono::system_clock::now()); }

void start_logging(const std::string& worker_id, bool json, Level least) {
  state() = {worker_id, json, least};
}

std::string log_line(Level level, std::string_view event, std::initializer_list<Field> fields) {
  nlohmann::ordered_json line{{"timestamp", rfc3339_now()},
                              {"level", name(level)},
                              {"event", std::string(event)},
                              {"worker_id", state().worker_id}};
  for (const Field& field : fields) {
    std::visit([&](const auto& v) { line[std::string(field.key)] = v; }, field.value);
  }
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void log(Level level, std::string_view event, std::initializer_list<Field> fields) noexcept try {
  if (level < state().least) return;
  const MayFail may;  // a line is not worth what is set aside
  queue().push(line_of(level, event, fields));
} catch (...) {
  // Out of memory while a line is made: the line is lost, the request is not.
}

void log_ready_line(std::string line) { queue().push(std::move(line)); }

bool flush_log(std::chrono::milliseconds timeout) { return queue().flush(timeout); }

}  // namespace llorch
