#include "server/deadline.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace llorch {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFarthest = std::chrono::hours(24 * 3650);

// Reads a date-time from its front.
class Reader3339 {
 public:
  explicit Reader3339(std::string_view text) : rest_(text) {}

  // Exactly `digits` of them, from `least` to `most`; -1 if not.
  int number(size_t digits, int least, int most) {
    if (rest_.size() < digits) return -1;
    int value = 0;
    for (const char c : rest_.substr(0, digits)) {
      if (c < '0' || c > '9') return -1;
      value = value * 10 + (c - '0');
    }
    rest_.remove_prefix(digits);
    return value < least || value > most ? -1 : value;
  }
  bool one_of(std::string_view characters) {
    if (rest_.empty() || characters.find(rest_.front()) == characters.npos) return false;
    last_ = rest_.front();
    rest_.remove_prefix(1);
    return true;
  }
  // At least one digit; the first six count.
  std::optional<std::chrono::microseconds> fraction() {
    int64_t micros = 0, unit = 100'000;
    size_t digits = 0;
    for (int digit = 0; !rest_.empty() && (digit = number(1, 0, 9)) >= 0; ++digits, unit /= 10) {
      micros += digit * unit;
    }
    if (digits == 0) return std::nullopt;
    return std::chrono::microseconds(micros);
  }
  char last() const { return last_; }
  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  char last_ = 0;
};

}  // namespace

std::optional<std::chrono::sys_time<std::chrono::microseconds>> parse_rfc3339(
    std::string_view text) {
  namespace chrono = std::chrono;
  Reader3339 in(text);
  const int year = in.number(4, 0, 9999);
  if (year < 0 || !in.one_of("-")) return std::nullopt;
  const int month = in.number(2, 1, 12);
  if (month < 0 || !in.one_of("-")) return std::nullopt;
  const int day = in.number(2, 1, 31);
  if (day < 0 || !in.one_of("Tt ")) return std::nullopt;
  const chrono::year_month_day date{chrono::year(year), chrono::month(unsigned(month)),
                                    chrono::day(unsigned(day))};
  const int hour = in.number(2, 0, 23);
  if (!date.ok() || hour < 0 || !in.one_of(":")) return std::nullopt;
  const int minute = in.number(2, 0, 59);
  if (minute < 0 || !in.one_of(":")) return std::nullopt;
  const int second = in.number(2, 0, 60);  // 60: a leap second
  if (second < 0) return std::nullopt;
  chrono::microseconds fraction{0};
  if (in.one_of(".")) {
    const auto read = in.fraction();
    if (!read) return std::nullopt;
    fraction = *read;
  }
  chrono::minutes offset{0};
  if (in.one_of("+-")) {
    const int sign = in.last() == '+' ? 1 : -1;
    const int hours = in.number(2, 0, 23);
    if (hours < 0 || !in.one_of(":")) return std::nullopt;
    const int minutes = in.number(2, 0, 59);
    if (minutes < 0) return std::nullopt;
    offset = sign * (chrono::hours(hours) + chrono::minutes(minutes));
  } else if (!in.one_of("Zz")) {
    return std::nullopt;
  }
  if (!in.at_end()) return std::nullopt;
  return chrono::sys_days(date) + chrono::hours(hour) + chrono::minutes(minute) +
         chrono::seconds(second) + fraction - offset;
}

Deadline::Milliseconds Deadline::at(std::string_view date_time,
                                    std::chrono::system_clock::time_point now) {
  const auto moment = parse_rfc3339(date_time);
  if (!moment) return std::nullopt;
  // Nanoseconds would not reach to the year 9999.
  const auto since = std::chrono::floor<std::chrono::microseconds>(now);
  return std::clamp(std::chrono::floor<milliseconds>(*moment - since), -kFarthest, kFarthest);
}

Deadline::Milliseconds Deadline::in(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return kFarthest;
  if (error != std::errc{}) return std::nullopt;
  return std::min(
      kFarthest,
      milliseconds(static_cast<int64_t>(std::min<uint64_t>(value, uint64_t(kFarthest.count())))));
}

}  // namespace llorch
