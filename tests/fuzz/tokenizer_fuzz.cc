// Bytes that begin with { are a tokenizer.json: read, or refused by an Error; what was read encodes
// and decodes. Any other bytes are a text: encoding loses nothing, ids are in range, and what is
// streamed is what is decoded, up to a stop sequence that never leaks.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "encode_in_range.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

namespace {

using llorch::encode_in_range;
using llorch::StreamDecoder;
using llorch::Tokenizer;
using Ids = std::vector<int32_t>;

void read_file(std::string_view json) {
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(json, "tokenizer.json");
    for (const std::string_view text : {"Hello  world, it's 123!\r\n\t x",
                                        "<s>a</s> \xE4\xBD\xA0\xF0\x9F\x99\x82\xFF \xCC\x81"}) {
      const Ids ids = encode_in_range(tokenizer, text, true);
      tokenizer.decode(ids, true);
      StreamDecoder stream(tokenizer, {"wor"});
      for (const int32_t id : ids) stream.push(id);
      stream.finish();
    }
  } catch (const llorch::Error&) {
  }
}

const Tokenizer& byte_level() {
  static const Tokenizer made = [] {
    auto json = llorch::byte_level_json({"th", "he", "the", "\xE4\xBD", "  ", " t"});
    json["model"]["merges"] =
        nlohmann::json::array({"t h", "h e", "th e", "t he", "\u0120 \u0120", "\u0120 t"});
    json["added_tokens"] = nlohmann::json::array({llorch::added_token_json(262, "<s>"),
                                                  llorch::added_token_json(263, "<|a|>"),
                                                  llorch::added_token_json(264, "a b", false)});
    json["pre_tokenizer"] = nlohmann::json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})");
    return llorch::tokenizer_of(json);
  }();
  return made;
}

// As SentencePiece makes them, with added tokens of every kind.
const Tokenizer& marks() {
  static const Tokenizer made = Tokenizer::from_json(R"({
    "added_tokens": [
      {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
      {"id": 8, "content": "ab", "single_word": true, "lstrip": true, "rstrip": false, "normalized": true, "special": false},
      {"id": 9, "content": "<r>", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": true},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"},
      {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": true}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "\u2581": 1, "a": 2, "b": 3, "\u2581a": 4, "aa": 5, "<0xE4>": 6, "<0xBD>": 7},
      "merges": ["\u2581 a", "a a"]}})",
                                                     "tokenizer.json");
  return made;
}

// Unigram as its models have it, and WordPiece.
const std::vector<Tokenizer>& other_models() {
  static const std::vector<Tokenizer> made = [] {
    std::vector<Tokenizer> all;
    all.push_back(Tokenizer::from_json(R"({
      "added_tokens": [],
      "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}]},
      "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false},
      "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false},
      "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0],
        ["\u2581", -2], ["a", -1.5], ["aa", -2.75], ["\u2581ab", -3], ["<0xE4>", -9], ["<0xBD>", -9]]}})",
                                       "tokenizer.json"));
    all.push_back(Tokenizer::from_json(R"({
      "added_tokens": [],
      "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                     "strip_accents": null, "lowercase": true},
      "pre_tokenizer": {"type": "BertPreTokenizer"},
      "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
      "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 9, "vocab": {"u": 0, "a": 1, "##a": 2, "##ab": 3, ".": 4}}})",
                                       "tokenizer.json"));
    return all;
  }();
  return made;
}

void read_text(std::string_view text) {
  const std::string whole = llorch::tok::to_valid_utf8(text);
  encode_in_range(marks(), text, true);
  encode_in_range(marks(), text, false);
  for (const Tokenizer& tokenizer : other_models()) {
    tokenizer.decode(encode_in_range(tokenizer, text, true), true);
  }

  const Ids ids = encode_in_range(byte_level(), text, true);
  CHECK(byte_level().decode(ids, false) == whole);
  const std::string decoded = byte_level().decode(ids, true);
  StreamDecoder plain(byte_level(), {});
  const std::vector<std::string> stops = {"the", "\n\n", std::string(whole.substr(0, 2)), "aab"};
  StreamDecoder stopping(byte_level(), stops);
  std::string streamed, stopped;
  for (const int32_t id : ids) {
    streamed += plain.push(id);
    stopped += stopping.push(id);
  }
  CHECK(streamed + plain.finish() == decoded);
  stopped += stopping.finish();
  CHECK(decoded.substr(0, stopped.size()) == stopped);
  CHECK(stopping.stopped()
            ? decoded.compare(stopped.size(), stopping.stopped()->size(), *stopping.stopped()) == 0
            : stopped == decoded);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (!bytes.empty() && bytes[0] == '{') {
    read_file(bytes);
  } else {
    read_text(bytes);
  }
  return 0;
}
