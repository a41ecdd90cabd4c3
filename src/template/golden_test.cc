// What jinja2 prints, as transformers sets it up: tests/golden/templates/cases.json, made by
// tools/template_diff.py --write.
#include <gtest/gtest.h>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "template/chat_template.h"

namespace llorch {
namespace {

using nlohmann::json;

std::string read(const std::string& name) {
  std::ifstream in("tests/golden/templates/" + name, std::ios::binary);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

const json& cases() {
  static const json loaded = json::parse(read("cases.json"));
  return loaded;
}

class Template : public testing::TestWithParam<size_t> {};

TEST_P(Template, PrintsWhatJinja2Prints) {
  const json& expected = cases()["templates"][GetParam()];
  const std::string name = expected["template"];
  const ChatTemplate chat = ChatTemplate::parse(read(name), name);
  size_t i = 0;
  for (const json& variables : cases()["chats"]) {
    const json& answer = expected["answers"][i++];
    SCOPED_TRACE(name + " of " + variables.get<std::string>());
    if (answer.is_null()) {
      EXPECT_THROW(chat.render(variables.get<std::string>()), Error);
    } else {
      EXPECT_EQ(chat.render(variables.get<std::string>()), answer.get<std::string>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Template, testing::Range<size_t>(0, cases()["templates"].size()),
                         [](const auto& info) {
                           const std::string name = cases()["templates"][info.param]["template"];
                           return name.substr(0, name.find('.'));
                         });

// Each: the source, the variables, 0 (prints), 1 (fails) or 2 (does not parse), and the text.
TEST(Snippets, DoWhatJinja2Does) {
  for (const json& snippet : cases()["snippets"]) {
    const std::string source = snippet[0], variables = snippet[1], text = snippet[3];
    int status = 0;
    std::string ours;
    try {
      const ChatTemplate parsed = ChatTemplate::parse(source, "snippet");
      status = 1;
      ours = parsed.render(variables);
      status = 0;
    } catch (const Error& e) {
      status = e.code() == ErrorCode::kUnsupported ? 2 : 1;
      ours = e.what();
    }
    EXPECT_EQ(status, snippet[2].get<int>()) << source << "\n" << variables << "\n" << ours;
    if (status == 0) {
      EXPECT_EQ(ours, text) << source << "\n" << variables;
    }
  }
}

}  // namespace
}  // namespace llorch
