#include "formats/json_reader.h"

#include <chrono>

#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;

void expect_corrupt(const std::string& text, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kCorruptFile, parts, [&] { JsonReader::parse(text, "c.json"); });
}

TEST(JsonReader, RefusesWhatIsNotOneObject) {
  expect_corrupt("", {"c.json", "not valid JSON at byte"});
  expect_corrupt("{\"a\": 1", {"c.json", "not valid JSON at byte"});
  expect_corrupt("{} {}", {"c.json", "not valid JSON at byte 4"});
  expect_corrupt("[1]", {"c.json", "must hold a JSON object; got an array"});
  expect_corrupt("\xff", {"c.json", "not valid JSON"});
  expect_corrupt("{\"a\": \"\xff\"}", {"c.json", "not valid JSON"});
  expect_corrupt("{\"a\": 1e999}", {"c.json", "a number is out of range"});
}

TEST(JsonReader, RefusesDeepNestingWhereverItIs) {
  const std::string open(65, '['), close(65, ']');
  expect_corrupt("{\"a\":" + open + close + "}", {"c.json", "nested deeper than 64"});
  expect_corrupt("{\"a\":" + std::string(1'000'000, '['), {"c.json", "nested deeper than 64"});
  std::string objects;
  for (int i = 0; i < 70; ++i) {
    objects += "{\"a\":";
  }
  expect_corrupt(objects, {"c.json", "nested deeper than 64"});
}

TEST(JsonReader, RefusesATopLevelKeyListedTwice) {
  expect_corrupt(R"({"w": 1, "v": {"w": 2}, "w": 3})", {"c.json: w: is listed twice"});
  EXPECT_EQ(JsonReader::parse(R"({"w": 1, "v": {"w": 2}})", "c.json").keys().size(), 2u);
}

TEST(JsonReader, GivesNoneForAbsentAndNull) {
  const auto r = JsonReader::parse(R"({"n": null})", "c.json");
  EXPECT_TRUE(r.contains("n"));
  EXPECT_FALSE(r.contains("x"));
  for (const char* key : {"n", "x"}) {
    EXPECT_FALSE(r.integer(key, 0, 1));
    EXPECT_FALSE(r.number(key, 0, 1));
    EXPECT_FALSE(r.boolean(key));
    EXPECT_FALSE(r.string(key));
    EXPECT_FALSE(r.strings(key));
    EXPECT_FALSE(r.integers(key, 0, 1));
    EXPECT_FALSE(r.one_or_more_integers(key, 0, 1));
    EXPECT_FALSE(r.object(key));
  }
}

TEST(JsonReader, ChecksTypeAndRangeByKey) {
  const auto r = JsonReader::parse(
      R"({"i": 7, "neg": -1, "f": 1.5, "b": true, "s": "7", "l": [1, 2], "mixed": [1, "x"],
          "big": 18446744073709551615, "o": {"k": "v"}})",
      "c.json");
  EXPECT_EQ(r.integer("i", 0, 7), 7);
  EXPECT_EQ(r.number("i", 0, 10), 7.0);
  EXPECT_EQ(r.number("f", 0, 10), 1.5);
  EXPECT_EQ(r.one_or_more_integers("i", 0, 9), std::vector<int64_t>{7});
  EXPECT_EQ(r.one_or_more_integers("l", 0, 9), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(r.object("o")->string("k"), "v");
  const auto corrupt = [&](const std::vector<std::string>& parts, const auto& get) {
    expect_error(ErrorCode::kCorruptFile, parts, get);
  };
  corrupt({"c.json: i: must be an integer from 0 to 6; got 7"}, [&] { r.integer("i", 0, 6); });
  corrupt({"c.json: neg: ", "got -1"}, [&] { r.integer("neg", 0, 6); });
  corrupt({"c.json: f: ", "got 1.5"}, [&] { r.integer("f", 0, 6); });
  corrupt({"c.json: b: ", "got true"}, [&] { r.integer("b", 0, 6); });
  corrupt({"c.json: s: ", "got \"7\""}, [&] { r.integer("s", 0, 6); });
  corrupt({"c.json: big: ", "18446744073709551615"}, [&] { r.integer("big", 0, INT64_MAX); });
  corrupt({"c.json: s: must be a number"}, [&] { r.number("s", 0, 6); });
  corrupt({"c.json: b: must be a number"}, [&] { r.number("b", 0, 6); });
  corrupt({"c.json: i: must be true or false; got 7"}, [&] { r.boolean("i"); });
  corrupt({"c.json: l: must be a string; got an array"}, [&] { r.string("l"); });
  corrupt({"c.json: mixed: must be a list of strings; got 1"}, [&] { r.strings("mixed"); });
  corrupt({"c.json: mixed: must be an integer"}, [&] { r.integers("mixed", 0, 9); });
  corrupt({"c.json: i: must be an object; got 7"}, [&] { r.object("i"); });
  corrupt({"c.json: o.k: must be true or false"}, [&] { r.object("o")->boolean("k"); });
}

TEST(JsonReader, KeepsTheDocumentAliveForItsInnerObjects) {
  std::optional<JsonReader> inner;
  {
    inner = JsonReader::parse(R"({"o": {"k": "a value too long to be kept in place"}})", "c.json")
                .object("o");
  }
  EXPECT_EQ(inner->string("k"), "a value too long to be kept in place");
}

TEST(JsonReader, TakesLinearTime) {
  std::string many = "{}";
  for (int i = 0; i < 400'000; ++i) many += ",{}";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(JsonReader::parse("{\"a\": [" + many + "]}", "c.json").contains("a"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(JsonReader, KeepsHostileKeysOnOneLine) {
  const std::string key(5000, 'k');
  expect_error(ErrorCode::kCorruptFile, {"c.json: ", "kkk"},
               [&] { JsonReader::parse("{\"" + key + "\\n\": 1}", "c.json").boolean(key + "\n"); });
}

}  // namespace
}  // namespace llorch
