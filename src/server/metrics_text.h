// GET /metrics: the engine's figures in the text format of Prometheus (0.0.4). Takes no lock.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace llorch {

inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

// Writes families one after the other: first its head, then all of its samples.
class MetricsWriter {
 public:
  struct Label {
    std::string_view name, value;
  };
  // name="value",… with values escaped; to be used for many samples.
  static std::string labels(std::initializer_list<Label> labels);

  // `type` is counter, gauge or histogram; `help` has no backslash and no line end.
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(std::string_view labels, uint64_t value);
  void sample(std::string_view labels, double value);
  // A family with one set of labels.
  void counter(std::string_view name, std::string_view help, std::string_view labels,
               uint64_t value);
  void gauge(std::string_view name, std::string_view help, std::string_view labels, double value);
  void histogram(std::string_view name, std::string_view help, std::string_view labels,
                 const Histogram& histogram);

  std::string take() { return std::move(text_); }

 private:
  void begin(std::string_view suffix, std::string_view labels);

  std::string text_;
  std::string name_;  // of the family
};

// What the server knows beside the engine.
struct ServerFigures {
  std::string_view model_name;
  uint64_t refused = 0;  // requests to generate that were answered 429 or 503
  int connections = 0;
  uint64_t weight_bytes = 0;
  double uptime_s = 0;
  uint64_t resident_bytes = 0;
};
std::string metrics_text(const Engine& engine, const ServerFigures& server);

}  // namespace llorch
