#include "server/deadline.h"

#include <gtest/gtest.h>

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

int64_t unix_ms(std::string_view text) {
  const auto moment = parse_rfc3339(text);
  EXPECT_TRUE(moment) << text;
  if (!moment) return -1;
  return std::chrono::duration_cast<milliseconds>(moment->time_since_epoch()).count();
}

// Expected: Python's datetime.fromisoformat(text).timestamp().
TEST(Deadline, ReadsRfc3339) {
  EXPECT_EQ(unix_ms("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(unix_ms("2026-11-25T14:30:15Z"), 1795617015000);
  EXPECT_EQ(unix_ms("2026-11-25t14:30:15.25z"), 1795617015250);
  EXPECT_EQ(unix_ms("2026-11-25T14:30:15.123456789Z"), 1795617015123);
  EXPECT_EQ(unix_ms("2026-11-25T15:30:15+01:00"), 1795617015000);
  EXPECT_EQ(unix_ms("2026-11-25T09:00:15-05:30"), 1795617015000);
  EXPECT_EQ(unix_ms("2024-02-29T00:00:00Z"), 1709164800000);
  EXPECT_EQ(unix_ms("2016-12-31T23:59:60Z"), 1483228800000);
}

TEST(Deadline, RefusesWhatIsNoDateTime) {
  for (const char* text :
       {"", "now", "2026-11-25", "2026-11-25T14:30:15", "2026-11-25T14:30Z", "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z", "2026-11-25T24:00:00Z", "2026-11-25T14:60:00Z",
        "2026-11-25T14:30:61Z", "2026-11-25T14:30:15.Z", "2026-11-25T14:30:15+1:00",
        "2026-11-25T14:30:15+24:00", "2026-11-25T14:30:15+01:00Z", "2026-11-25T14:30:15Z ",
        "26-11-25T14:30:15Z", "+026-11-25T14:30:15Z", "2026-11-25T14:30:1\xd9\xa1Z"}) {
    EXPECT_FALSE(parse_rfc3339(text)) << text;
  }
}

TEST(Deadline, CountsFromNow) {
  const auto now = *parse_rfc3339("2026-11-25T14:30:15Z");
  EXPECT_EQ(Deadline::at("2026-11-25T14:30:16.5Z", now), milliseconds(1500));
  EXPECT_EQ(Deadline::at("2026-11-25T14:30:14Z", now), milliseconds(-1000));
  EXPECT_EQ(Deadline::at("9999-12-31T23:59:59Z", now), std::chrono::hours(24 * 3650));
  EXPECT_EQ(Deadline::at("tomorrow", now), std::nullopt);
}

TEST(Deadline, ReadsMilliseconds) {
  EXPECT_EQ(Deadline::in("0"), milliseconds(0));
  EXPECT_EQ(Deadline::in("1500"), milliseconds(1500));
  for (const char* far : {"999999999999999", "18446744073709551615", "99999999999999999999999"}) {
    EXPECT_EQ(Deadline::in(far), std::chrono::hours(24 * 3650)) << far;
  }
  for (const char* text : {"", " 1", "1 ", "-1", "+1", "1.5", "1e3", "0x1", "1s"}) {
    EXPECT_FALSE(Deadline::in(text)) << text;
  }
}

}  // namespace
}  // namespace llorch
