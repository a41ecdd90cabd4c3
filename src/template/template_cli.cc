// Renders templates for tools/template_diff.py, which compares the answers with jinja2's. Part of
// the tests.
//
//   template_cli < cases > answers
//
// All numbers are 32-bit little-endian. A case: a template and a JSON object of variables, each as
// its length and its bytes. The answer: 0 and the text, or 1 (failed) or 2 (does not parse) and the
// reason.
//
//   template_cli --chat FOLDER < cases > answers
//
// A case: the JSON texts of messages, tools, documents and kwargs, each as its length and its
// bytes. The answer: as above, of the folder's own templates.
//
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "template/chat_template.h"

namespace llorch {
namespace {

bool read_text(std::string& text) {
  uint32_t length = 0;
  if (std::fread(&length, sizeof length, 1, stdin) != 1) return false;
  text.resize(length);
  return std::fread(text.data(), 1, length, stdin) == length;
}

void answer(uint32_t status, const std::string& text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::fwrite(&status, sizeof status, 1, stdout);
  std::fwrite(&length, sizeof length, 1, stdout);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

int run() {
  std::string source, variables;
  while (read_text(source) && read_text(variables)) {
    try {
      answer(0, ChatTemplate::parse(source, "template").render(variables));
    } catch (const Error& e) {
      answer(e.code() == ErrorCode::kUnsupported ? 2 : 1, e.what());
    }
  }
  return 0;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

int run_chat(const std::string& folder) {
  const ChatTemplates chat =
      ChatTemplates::load(read_file(folder + "/tokenizer_config.json"),
                          read_file(folder + "/chat_template.jinja"), folder);
  ChatTemplates::Input input;
  while (read_text(input.messages) && read_text(input.tools) && read_text(input.documents) &&
         read_text(input.kwargs)) {
    if (!chat.usable()) {
      answer(2, chat.why_not());
      continue;
    }
    try {
      answer(0, chat.apply(input));
    } catch (const Error& e) {
      answer(1, e.what());
    }
  }
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  const bool chat = argc == 3 && std::string(argv[1]) == "--chat";
  if (argc != 1 && !chat) {
    std::cerr << "usage: template_cli [--chat FOLDER]\n";
    return 2;
  }
  try {
    return chat ? llorch::run_chat(argv[2]) : llorch::run();
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
