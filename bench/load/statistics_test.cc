#include "load/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace llorch::bench {
namespace {

TEST(Quantiles, AreValuesThatWereSeen) {
  std::vector<double> values(100);
  std::iota(values.rbegin(), values.rend(), 1);  // 100 … 1
  const Quantiles q = quantiles(values);
  // Nearest rank: the smallest value that so many are no greater than.
  EXPECT_EQ(q.count, 100U);
  EXPECT_EQ(q.p50, 50);
  EXPECT_EQ(q.p90, 90);
  EXPECT_EQ(q.p99, 99);
  EXPECT_EQ(q.max, 100);
  EXPECT_DOUBLE_EQ(q.mean, 50.5);
  EXPECT_EQ(quantiles({3, 1, 2}).p50, 2);
  EXPECT_EQ(quantiles({3, 1, 2}).p99, 3);
  EXPECT_EQ(quantiles({5}).p50, 5);
  EXPECT_EQ(quantiles({}).count, 0U);
  EXPECT_EQ(quantiles({}).max, 0);
}

TEST(Cumulative, EndsAtAllOfThem) {
  const Points all = cumulative({4, 1, 2, 2});
  EXPECT_EQ(all, (Points{{1, 0.25}, {2, 0.5}, {2, 0.75}, {4, 1}}));
  std::vector<double> many(1000);
  std::iota(many.begin(), many.end(), 1);
  const Points few = cumulative(many, 10);
  ASSERT_EQ(few.size(), 10U);
  EXPECT_EQ(few.front(), (std::pair<double, double>{100, 0.1}));
  EXPECT_EQ(few.back(), (std::pair<double, double>{1000, 1}));
  EXPECT_TRUE(cumulative({}).empty());
}

TEST(TimeSeries, PutsValuesIntoTheirSpan) {
  TimeSeries series(10, 5);
  series.add(0, 1);
  series.add(1.9, 3);
  series.add(4, 7);
  series.add(10, 9);  // the end belongs to the last span
  series.add(-1, 5);  // and what was early to the first
  EXPECT_EQ(series.share(0.5), (Points{{1, 3}, {5, 7}, {9, 9}}));
  EXPECT_EQ(series.sums_per_second(), (Points{{1, 4.5}, {3, 0}, {5, 3.5}, {7, 0}, {9, 4.5}}));
}

Record record(Outcome outcome, double scheduled, double sent, double first, double last,
              double ended, int events) {
  Record r;
  r.outcome = outcome;
  r.scheduled = scheduled, r.sent = sent, r.first = first, r.last = last, r.ended = ended;
  r.events = events;
  return r;
}

TEST(Summary, CountsEveryRequestOnce) {
  RunResult run;
  run.seconds = 20;
  run.records = {
      record(Outcome::kOk, 1, 1.5, 2, 6, 6, 5), record(Outcome::kCancelled, 2, 2, 3, 3, 4, 1),
      record(Outcome::kRefused, 3, 3, 0, 0, 3.5, 0), record(Outcome::kRefused, 3, 3, 0, 0, 3.5, 0),
      record(Outcome::kLost, 4, 4, 0, 0, 11, 0)};
  run.records[1].turn = 1;
  run.records[2].retry_after = true;
  run.records[2].code = run.records[3].code = "http_429";
  run.records[4].code = "timeout";
  run.records[0].tokens_out = 5;
  const Summary s = summarize(run);
  EXPECT_EQ(s.sent, 5U);
  EXPECT_EQ(s.outcomes, (std::array<size_t, kOutcomes>{1, 1, 0, 2, 0, 1}));
  EXPECT_EQ(std::accumulate(s.outcomes.begin(), s.outcomes.end(), size_t{0}), s.sent);
  EXPECT_EQ(s.refused_without_retry_after, 1U);
  EXPECT_EQ(s.codes, (std::map<std::string, size_t>{{"http_429", 2}, {"timeout", 1}}));
  EXPECT_EQ(s.tokens_out, 5);
  EXPECT_EQ(s.seconds, 10);
  EXPECT_EQ(s.most_open, 4);  // at 3: the first two, and both refusals
}

TEST(Summary, LatenciesCountFromWhenARequestWasDue) {
  RunResult run;
  run.seconds = 20;
  run.records = {record(Outcome::kOk, 1, 1.5, 2, 6, 6.5, 5),
                 record(Outcome::kDisconnected, 2, 2, 5, 5, 5, 1)};
  run.records[1].turn = 2;
  run.gaps = {{3, 1, 0}, {6, 3, 0}};
  run.path = {{
                  1,
                  0.5,
              },
              {2, -7}};
  const Summary s = summarize(run);
  EXPECT_EQ(s.ttft.count, 2U);
  EXPECT_EQ(s.ttft.max, 3);
  EXPECT_EQ(s.first_turn_ttft.max, 1);
  EXPECT_EQ(s.later_turn_ttft.max, 3);
  EXPECT_EQ(s.per_token.count, 1U);  // one token alone has none after it
  EXPECT_EQ(s.per_token.max, 1);
  EXPECT_EQ(s.whole.count, 1U);
  EXPECT_EQ(s.whole.max, 5.5);
  EXPECT_EQ(s.gap.mean, 2);
  EXPECT_EQ(s.path.count, 1U);
  EXPECT_EQ(s.path_failed, 1U);
}

TEST(OpenRequests, AnEndFreesItsPlaceForAStartAtTheSameTime) {
  const Points open = open_requests(
      {record(Outcome::kOk, 0, 0, 1, 2, 2, 3), record(Outcome::kOk, 2, 2, 3, 3, 4, 1)});
  EXPECT_EQ(open, (Points{{0, 1}, {2, 0}, {2, 1}, {4, 0}}));
}

}  // namespace
}  // namespace llorch::bench
