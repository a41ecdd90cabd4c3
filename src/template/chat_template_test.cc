// The interface: sources of templates, what is passed to them, and how they fail. What they print
// is compared with jinja2 in golden_test.cc.
#include "template/chat_template.h"

#include <gtest/gtest.h>
#include <chrono>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

std::string failure(const std::string& source, const std::string& variables = "{}") {
  const auto begin = std::chrono::steady_clock::now();
  std::string reason;
  try {
    reason = "rendered: " + ChatTemplate::parse(source, "t").render(variables).substr(0, 60);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadRequest);
    reason = e.what();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 1.0) << source;  // 0.1 on a free machine
  return reason;
}

std::string parse_error(const std::string& source) {
  try {
    ChatTemplate::parse(source, "name");
    return "parsed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    return e.what();
  }
}

TEST(ChatTemplate, NamesTheLineOfAnError) {
  EXPECT_EQ(parse_error("a\n{% if %}"),
            "name: line 2: Expected an expression, got 'end of statement block'");
  EXPECT_EQ(parse_error("a\n\n{{ x | nope }}"), "name: line 3: No filter named 'nope'.");
  EXPECT_EQ(failure("a\n{{ x.y.z }}", "{\"x\": {}}"),
            "[chat_template] line 2: 'dict object' has no attribute 'y'");
  EXPECT_EQ(failure("\n{{ raise_exception('not so') }}"), "[chat_template] line 2: not so");
}

TEST(ChatTemplate, StandsAlone) {
  for (const std::string tag :
       {"include 'x'", "extends 'x'", "import 'x' as y", "from 'x' import y"}) {
    EXPECT_EQ(parse_error("{% " + tag + " %}"),
              "name: line 1: '" + tag.substr(0, tag.find(' ')) +
                  "' is not supported: a chat template stands alone");
  }
}

TEST(ChatTemplate, EndsWhatDoesNotEnd) {
  for (const char* source : {
           "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
           "{{ range(10**12) }}",
           "{{ range(1000000000000) | list }}",
           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
           "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
           "{{ 'a' * 1000000000 }}",
           "{{ ['a'] * 1000000000 }}",
           "{{ '%1000000000d' % 1 }}",
           "{{ '{:1000000000}'.format(1) }}",
           "{{ 'a'.center(1000000000) }}",
           "{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s ~ ns.s %}"
           "{% endfor %}",
           "{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s ~ "
           "'abcdefgh' %}"
           "{% endfor %}",
           "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l, ns.l] %}"
           "{% endfor %}",
           "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ns.l %}"
           "{% endfor %}",
           "{% set ns = namespace(s='x' * 1000000) %}{% for i in range(100000) %}{% set x = ns.s | "
           "upper %}"
           "{% endfor %}",
           "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s == s ~ 'b' %}{% endif %}"
           "{% endfor %}",
           "{{ 9 ** 9 ** 9 }}",
       }) {
    const std::string reason = failure(source);
    EXPECT_EQ(reason.substr(0, 16), "[chat_template] ") << source << "\n" << reason;
  }
}

TEST(ChatTemplate, RendersALongConversation) {
  const ChatTemplate chat = ChatTemplate::parse(
      "{% for m in messages %}{% for c in m.text %}{% if c == 'b' and m.text is string %}{{ c | "
      "trim }}"
      "{% endif %}{% endfor %}{{ m.text | trim | upper | tojson }}{% endfor %}",
      "t");
  const std::string text(100'000, 'a');
  std::string messages, expected;
  for (int i = 0; i < 10; ++i) {
    messages += (i > 0 ? ", {\"text\": \"" : "{\"text\": \"") + text + "\"}";
    expected += "\"" + std::string(text.size(), 'A') + "\"";
  }
  EXPECT_EQ(chat.render("{\"messages\": [" + messages + "]}"), expected);
}

TEST(ChatTemplate, RefusesDeepNesting) {
  std::string source, close;
  for (int i = 0; i < 100000; ++i) source += "(";
  EXPECT_EQ(parse_error("{{ " + source), "name: line 1: the template is nested too deeply");
  source.clear();
  for (int i = 0; i < 100000; ++i) source += "- ";
  EXPECT_EQ(parse_error("{{ " + source + "1 }}"),
            "name: line 1: the template is nested too deeply");
  source = "1";
  for (int i = 0; i < 100000; ++i) source += " + 1";
  EXPECT_EQ(parse_error("{{ " + source + " }}"), "name: line 1: the template is nested too deeply");
  source.clear();
  for (int i = 0; i < 100000; ++i) source += "{% if 1 %}";
  EXPECT_EQ(parse_error(source), "name: line 1: the template is nested too deeply");
}

TEST(ChatTemplates, TakesTheTemplateOfTheConfig) {
  const auto chat = ChatTemplates::load(
      R"({"bos_token": {"content": "<s>"}, "eos_token": null, "x_token": "X",
          "chat_template": "{{ bos_token }}{{ eos_token is defined }}{{ x_token }}{{ messages[0].content }}{{ tools }}"})",
      "", "");
  ASSERT_TRUE(chat.usable()) << chat.why_not();
  EXPECT_EQ(chat.apply({.messages = R"([{"role": "user", "content": "hi", "name": null}])"}),
            "<s>FalseXhiNone");
}

TEST(ChatTemplates, PrefersTheFileAndThenToolUse) {
  const char* config = R"({"chat_template": [{"name": "default", "template": "plain"},
                                             {"name": "tool_use", "template": "tools"}]})";
  const auto named = ChatTemplates::load(config, "", "");
  ASSERT_TRUE(named.usable()) << named.why_not();
  const std::string messages = R"([{"role": "user"}])";
  EXPECT_EQ(named.apply({.messages = messages}), "plain");
  EXPECT_EQ(named.apply({.messages = messages, .tools = "[]"}), "tools");
  EXPECT_EQ(named.apply({.messages = messages, .tools = "null"}), "plain");
  const auto file = ChatTemplates::load(config, "file", "");
  EXPECT_EQ(file.apply({.messages = messages, .tools = "[]"}), "file");
}

TEST(ChatTemplates, SaysWhyChatIsRefused) {
  EXPECT_EQ(ChatTemplates::load("{}", "", "").why_not(), "the model has no chat template");
  const auto broken = ChatTemplates::load(R"({"chat_template": "a\n{% for %}"})", "", "");
  EXPECT_FALSE(broken.usable());
  EXPECT_EQ(broken.why_not(),
            "tokenizer_config.json: chat_template: line 2: Expected an expression, got "
            "'end of statement block'");
}

TEST(ChatTemplates, RefusesMessagesThatAreNone) {
  const auto chat = ChatTemplates::load(R"({"chat_template": "x"})", "", "");
  for (const char* messages : {"", "[]", "{}", "[1]", "[{]", "null"}) {
    EXPECT_THROW(chat.apply({.messages = messages}), Error) << messages;
  }
}

TEST(ChatTemplates, PassesReasoningUnderEachName) {
  const auto chat = ChatTemplates::load(
      R"({"chat_template": "{{ messages[0].thinking }}|{{ messages[0].reasoning_content }}"})", "",
      "");
  EXPECT_EQ(chat.apply({.messages = R"([{"role": "assistant", "reasoning": "hm"}])"}), "hm|hm");
}

}  // namespace
}  // namespace llorch
