#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

namespace llorch {
namespace {

struct State {
  std::string worker_id;
  bool json = true;
  std::shared_ptr<spdlog::logger> logger;
};

State& state() {
  static State state;
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

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
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
  State& s = state();
  s.worker_id = worker_id;
  s.json = json;
  if (!s.logger) {
    s.logger = std::make_shared<spdlog::logger>("worker",
                                                std::make_shared<spdlog::sinks::stdout_sink_mt>());
    s.logger->set_pattern("%v");
    s.logger->flush_on(spdlog::level::trace);
    // A full disk behind stdout must not end a request, let alone the process.
    s.logger->set_error_handler([](const std::string&) {});
  }
  s.logger->set_level(to_spdlog(least));
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

void log(Level level, std::string_view event, std::initializer_list<Field> fields) try {
  State& s = state();
  if (!s.logger) start_logging(s.worker_id, s.json, Level::kInfo);
  if (!s.logger->should_log(to_spdlog(level))) return;
  s.logger->log(to_spdlog(level), "{}",
                s.json ? log_line(level, event, fields) : pretty_line(level, event, fields));
} catch (...) {
  // Out of memory while a line is made: the line is lost, the request is not.
}

}  // namespace llorch
