// The headers X-Deadline and X-Deadline-Ms: when a request must be finished (contract, section 5).
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace llorch {

// The moment that an RFC 3339 date-time names; none if it is none.
std::optional<std::chrono::sys_time<std::chrono::microseconds>> parse_rfc3339(
    std::string_view text);

// A header's value; none if it is malformed. Far ones count as some years.
struct Deadline {
  using Milliseconds = std::optional<std::chrono::milliseconds>;
  // From `now` on; negative if it has passed.
  static Milliseconds at(std::string_view date_time, std::chrono::system_clock::time_point now);
  static Milliseconds in(std::string_view milliseconds);
};

}  // namespace llorch
