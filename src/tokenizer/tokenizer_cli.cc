// Encodes and decodes texts for tools/tokenizer_diff.py, which compares the answers with another
// implementation. Part of the tests.
//
//   tokenizer_cli FILE < texts > answers      (load() says what FILE may be)
//
// All numbers are 32-bit little-endian. A text is its length and its bytes. The answer: a list of
// ids (count, ids) with special tokens added and parsed; one with neither; the first list decoded
// with special tokens and without (length, bytes); and 1 if streaming it agrees with decoding it.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tokenizer/stream_decoder.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

namespace llorch {
namespace {

bool read_text(std::string& text) {
  uint32_t length = 0;
  if (std::fread(&length, sizeof length, 1, stdin) != 1) return false;
  text.resize(length);
  return std::fread(text.data(), 1, length, stdin) == length;
}

void write_number(uint32_t number) { std::fwrite(&number, sizeof number, 1, stdout); }

void write_ids(const std::vector<int32_t>& ids) {
  write_number(static_cast<uint32_t>(ids.size()));
  std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout);
}

void write_text(const std::string& text) {
  write_number(static_cast<uint32_t>(text.size()));
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// Wherever a prompt could end (of a long text: at every eighth place), its text and the streamed
// text behind it are the whole text.
bool streams_like_whole(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const size_t stride = ids.size() <= 128 ? 1 : 8;
  const std::string whole = tokenizer.decode(ids, true);
  // A text may spell a byte-fallback token; see StreamDecoder::push() on what follows from that.
  std::string all_bytes;
  for (const int32_t id : ids)
    all_bytes += tokenizer.is_special(id) ? "" : tokenizer.token_bytes(id);
  if (tokenizer.replaces_each_byte() && !tok::is_valid_utf8(all_bytes)) return true;
  std::string prompt_bytes;
  bool begun = false;
  for (size_t k = 1; k <= ids.size(); ++k) {
    const int32_t id = ids[k - 1];
    if (!tokenizer.is_special(id)) {
      prompt_bytes += tokenizer.token_bytes(id);
      begun = true;
    }
    if (k % stride != 0 || !begun || !tok::is_valid_utf8(prompt_bytes)) continue;
    std::string text = tokenizer.decode(std::span(ids).first(k), true);
    StreamDecoder stream(tokenizer, {});
    for (size_t i = k; i < ids.size(); ++i) text += stream.push(ids[i]);
    text += stream.finish();
    if (text != whole) return false;
  }
  return true;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// A tokenizer.json, a tokenizer.model with the tokenizer_config.json beside it, or a GGUF file's
// vocabulary as *.gguf.json.
Tokenizer load(const std::string& path) {
  const size_t name = path.rfind('/') + 1;
  const std::string bytes = read_file(path);
  if (ends_with(path, ".gguf.json")) {
    const auto json = nlohmann::json::parse(bytes);
    return Tokenizer::from_gguf(gguf_vocabulary_of(json), path);
  }
  if (!ends_with(path, ".model")) return Tokenizer::from_json(bytes, path);
  return Tokenizer::from_sentencepiece(
      bytes, read_file(path.substr(0, name) + "tokenizer_config.json"), path);
}

int run(const char* path) {
  const Tokenizer tokenizer = load(path);
  std::string text;
  while (read_text(text)) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    write_ids(ids);
    write_ids(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}));
    write_text(tokenizer.decode(ids, false));
    write_text(tokenizer.decode(ids, true));
    write_number(streams_like_whole(tokenizer, ids) ? 1 : 0);
  }
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenizer_cli FILE\n";
    return 2;
  }
  try {
    return llorch::run(argv[1]);
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
