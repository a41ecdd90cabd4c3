#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <initializer_list>
#include <set>

#include "base/error.h"
#include "tokenizer/added_token_list.h"
#include "tokenizer/base64.h"
#include "tokenizer/json_document.h"
#include "tokenizer/json_model.h"
#include "tokenizer/json_node.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr size_t kMaxSteps = 64;  // of a pipeline, sequences laid out
constexpr size_t kMaxTemplateIds = 64;

// Lays out a component and the Sequences in it: `visit(type, node)` for each that is not one.
template <typename Visit>
void for_each_step(const JsonNode& node, const char* members, size_t& steps, const Visit& visit) {
  const std::string& type = node.at("type").string();
  if (type == "Sequence") {
    for (const JsonNode& item : node.at(members).items()) {
      for_each_step(item, members, steps, visit);
    }
    return;
  }
  if (++steps > kMaxSteps) node.unsupported("more than " + std::to_string(kMaxSteps) + " steps");
  visit(type, node);
}

[[noreturn]] void unknown(const JsonNode& node, const char* kind, const std::string& type) {
  node.unsupported(std::string("the ") + kind + " " + shown(type) + " is not supported");
}

// {"String": "..."} or {"Regex": "..."}.
Pattern read_pattern(const JsonNode& node) {
  if (const auto text = node.find("String")) return Pattern::literal(text->string());
  const auto regex = node.find("Regex");
  if (!regex) node.corrupt("must have a String or a Regex");
  try {
    return Pattern::regex(regex->string());
  } catch (const UntranslatablePattern& e) {
    regex->unsupported(std::string("the pattern is not supported: ") + shown(e.what()));
  }
}

std::string read_char(const JsonNode& node) {
  const std::string& text = node.string();
  if (text.empty() || char_bytes(text, 0) != text.size()) node.corrupt("must be one character");
  return text;
}

SplitBehavior read_behavior(const JsonNode& node) {
  const std::string& name = node.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  node.unsupported("the behavior " + shown(name) + " is not supported");
}

// Old files have add_prefix_space, new ones prepend_scheme.
MetaspaceWords::Prepend read_prepend(const JsonNode& node) {
  using Prepend = MetaspaceWords::Prepend;
  Prepend prepend = Prepend::kAlways;
  if (const auto scheme = node.find("prepend_scheme")) {
    const std::string& name = scheme->string();
    if (name == "first") {
      prepend = Prepend::kFirst;
    } else if (name == "never") {
      prepend = Prepend::kNever;
    } else if (name != "always") {
      scheme->unsupported("the scheme " + shown(name) + " is not supported");
    }
    if (!node.boolean_or("add_prefix_space", true) && prepend != Prepend::kNever) {
      node.corrupt("add_prefix_space and prepend_scheme contradict each other");
    }
  } else if (!node.boolean_or("add_prefix_space", true)) {
    prepend = Prepend::kNever;
  }
  return prepend;
}

Charsmap read_charsmap(const JsonNode& node) {
  const std::optional<std::string> block = bytes_of_base64(node.string());
  if (!block) node.corrupt("is not base64");
  try {
    return Charsmap::parse(*block);
  } catch (const DamagedCharsmap& e) {
    node.corrupt(e.what());
  }
}

Normalizer read_normalizer(const std::string& type, const JsonNode& node) {
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  if (type == "Lowercase") return LowercaseText{};
  if (type == "StripAccents") return StripAccentsText{};
  if (type == "Nmt") return NmtText{};
  if (type == "ByteLevel") return ByteLevelText{};
  if (type == "BertNormalizer") {
    const bool lowercase = node.at("lowercase").boolean();
    return BertText{node.at("clean_text").boolean(), node.at("handle_chinese_chars").boolean(),
                    node.boolean_or("strip_accents", lowercase), lowercase};
  }
  if (type == "Precompiled") return read_charsmap(node.at("precompiled_charsmap"));
  if (type == "Prepend") return PrependText{node.at("prepend").string()};
  if (type == "Strip") {
    return StripText{node.at("strip_left").boolean(), node.at("strip_right").boolean()};
  }
  if (type == "Replace") {
    return ReplaceText{read_pattern(node.at("pattern")), node.at("content").string()};
  }
  unknown(node, "normalizer", type);
}

PreTokenizer read_words(const std::string& type, const JsonNode& node) {
  if (type == "ByteLevel") {
    return ByteLevelWords{node.at("add_prefix_space").boolean(),
                          node.boolean_or("use_regex", true)};
  }
  if (type == "Split") {
    return SplitWords{read_pattern(node.at("pattern")), read_behavior(node.at("behavior")),
                      node.at("invert").boolean()};
  }
  if (type == "Digits") return DigitsWords{node.at("individual_digits").boolean()};
  if (type == "Punctuation") {
    const auto behavior = node.find("behavior");
    return PunctuationWords{behavior ? read_behavior(*behavior) : SplitBehavior::kIsolated};
  }
  if (type == "Whitespace") return WhitespaceWords{};
  if (type == "WhitespaceSplit") return WhitespaceSplitWords{};
  if (type == "Metaspace") {
    return MetaspaceWords{read_char(node.at("replacement")), read_prepend(node),
                          node.boolean_or("split", true)};
  }
  if (type == "CharDelimiterSplit") {
    return SplitWords{Pattern::literal(read_char(node.at("delimiter"))), SplitBehavior::kRemoved,
                      false};
  }
  if (type == "FixedLength") {
    const auto length = node.find("length");
    return FixedLengthWords{length ? static_cast<size_t>(length->integer(1, INT64_MAX)) : 5};
  }
  unknown(node, "pre-tokenizer", type);
}

// Most pre-tokenizers are one step.
std::vector<PreTokenizer> read_pre_tokenizer(const std::string& type, const JsonNode& node) {
  if (type == "BertPreTokenizer") {
    return {WhitespaceSplitWords{}, PunctuationWords{SplitBehavior::kIsolated}};
  }
  return {read_words(type, node)};
}

Decoder read_decoder(const std::string& type, const JsonNode& node) {
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "ByteFallback") return ByteFallbackDecoder{};
  if (type == "Fuse") return FuseDecoder{};
  if (type == "Strip") {
    return StripDecoder{read_char(node.at("content")),
                        static_cast<size_t>(node.at("start").integer(0, INT32_MAX)),
                        static_cast<size_t>(node.at("stop").integer(0, INT32_MAX))};
  }
  if (type == "Replace") {
    return ReplaceDecoder{read_pattern(node.at("pattern")), node.at("content").string()};
  }
  if (type == "Metaspace") {
    return MetaspaceDecoder{read_char(node.at("replacement")),
                            read_prepend(node) != MetaspaceWords::Prepend::kNever};
  }
  if (type == "WordPiece") {
    return WordPieceDecoder{node.at("prefix").string(), node.at("cleanup").boolean()};
  }
  unknown(node, "decoder", type);
}

bool is_one_char(const JsonNode& pattern) {
  const auto text = pattern.find("String");
  return text && only_char(text->string()) != 0;
}

// Text is sent token by token, so that what a step makes of one must not depend on those around it.
// Once a step has joined the tokens, that holds only for what looks at single characters, or at the
// start of the whole text, which has been sent by then.
void check_is_local(const std::string& type, const JsonNode& node, bool joined, bool bytes_before) {
  const auto refuse = [&](const std::string& where) {
    node.unsupported("the decoder " + type + where + " is not supported: its text cannot be sent " +
                     "token by token");
  };
  if (joined) {
    if (type == "Replace" && !is_one_char(node.at("pattern"))) {
      refuse(" of more than one character after a step that joins the tokens");
    }
    if (type == "Strip" && !node.at("stop").is_zero()) {
      refuse(" at the end after a step that joins the tokens");
    }
    if (type == "WordPiece" && node.at("cleanup").boolean()) {
      refuse(" with cleanup after a step that joins the tokens");
    }
  } else if (type == "WordPiece" && bytes_before) {
    refuse(" after ByteFallback");
  }
}

std::vector<Decoder> read_decoders(const JsonNode& root) {
  std::vector<Decoder> decoders;
  const auto node = root.find("decoder");
  if (!node) return decoders;
  size_t steps = 0;
  bool joined = false, bytes = false;
  for_each_step(*node, "decoders", steps, [&](const std::string& type, const JsonNode& step) {
    decoders.push_back(read_decoder(type, step));
    check_is_local(type, step, joined, bytes);
    joined |= type == "Fuse" || type == "ByteLevel";
    bytes |= type == "ByteFallback";
  });
  return decoders;
}

// The library gives an added token the id that its content has in the vocabulary, else the next
// one; the file's own id is only compared with that, and so is it here.
AddedTokens read_added_tokens(const JsonNode& root, const Vocabulary& vocabulary,
                              const std::vector<Normalizer>& normalizers) {
  std::vector<AddedToken> tokens;
  const auto list = root.find("added_tokens");
  if (!list) return AddedTokens({}, root.file());
  auto next_id = static_cast<int32_t>(vocabulary.size());
  std::set<int64_t> ids;
  std::set<std::string_view> contents;
  for (const JsonNode& item : list->items()) {
    AddedToken token;
    token.content = item.at("content").string();
    token.single_word = item.at("single_word").boolean();
    token.lstrip = item.at("lstrip").boolean();
    token.rstrip = item.at("rstrip").boolean();
    token.normalized = item.at("normalized").boolean();
    token.special = item.at("special").boolean();
    if (!ids.insert(item.at("id").integer(0, kMaxTokenId)).second)
      item.at("id").corrupt("is listed twice");
    if (token.content.empty()) continue;
    if (!contents.insert(item.at("content").string()).second) {
      item.at("content").corrupt("is listed twice");
    }
    complete(token, vocabulary, normalizers, next_id);
    tokens.push_back(std::move(token));
  }
  return AddedTokens(std::move(tokens), root.file());
}

struct PostReader {
  const Vocabulary& vocabulary;
  const AddedTokens& added;

  int32_t read_id(const JsonNode& node) const {
    const auto id = static_cast<int32_t>(node.integer(0, kMaxTokenId));
    if (added.find(id) == nullptr && !vocabulary.token_of(id)) {
      node.corrupt("is the id of no token");
    }
    return id;
  }

  // {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": ...}],
  //  "special_tokens": {"<s>": {"ids": [1]}}}
  std::vector<TemplatePiece> read_template(const JsonNode& node) const {
    std::vector<TemplatePiece> pieces;
    size_t ids = 0;
    for (const JsonNode& item : node.at("single").items()) {
      if (const auto sequence = item.find("Sequence")) {
        if (sequence->at("id").string() != "A") sequence->corrupt("a single text is named A");
        pieces.push_back({true, {}});
        continue;
      }
      const std::string& name = item.at("SpecialToken").at("id").string();
      TemplatePiece piece{false, {}};
      for (const JsonNode& id : node.at("special_tokens").at(name.c_str()).at("ids").items()) {
        piece.special.push_back(read_id(id));
      }
      ids += piece.special.size();
      pieces.push_back(std::move(piece));
    }
    if (ids > kMaxTemplateIds || pieces.size() > kMaxTemplateIds) {
      node.unsupported("a template of more than " + std::to_string(kMaxTemplateIds) + " pieces");
    }
    const auto texts = std::count_if(pieces.begin(), pieces.end(),
                                     [](const TemplatePiece& piece) { return piece.is_text; });
    if (texts != 1) node.unsupported("a template that does not hold the text once");
    return pieces;
  }

  // BertProcessing and RobertaProcessing: "cls" and "sep" are pairs of a token and its id.
  std::vector<TemplatePiece> read_cls_sep(const JsonNode& node) const {
    const auto id = [&](const char* key) {
      const std::vector<JsonNode> pair = node.at(key).items();
      if (pair.size() != 2) node.at(key).corrupt("must be a token and its id");
      return read_id(pair[1]);
    };
    return {{false, {id("cls")}}, {true, {}}, {false, {id("sep")}}};
  }
};

std::vector<TemplatePiece> read_post_processor(const JsonNode& root, const PostReader& reader) {
  std::vector<TemplatePiece> post = {{true, {}}};
  const auto processor = root.find("post_processor");
  if (!processor) return post;
  size_t steps = 0;
  for_each_step(*processor, "processors", steps,
                [&](const std::string& type, const JsonNode& node) {
                  if (type == "ByteLevel") return;  // only moves offsets
                  if (post.size() > 1)
                    node.unsupported("a second processor that adds tokens is not supported");
                  if (type == "TemplateProcessing") {
                    post = reader.read_template(node);
                  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
                    post = reader.read_cls_sep(node);
                  } else {
                    unknown(node, "post-processor", type);
                  }
                });
  return post;
}

}  // namespace

// `truncation` and `padding` are not read: they are for batches of a fixed length, and a prompt is
// never cut or filled up in silence. Keys that the library does not know are passed over, as there.
Parts read_tokenizer_json(std::string_view text, const std::string& file) {
  const TokenizerDocument document = parse_tokenizer_json(text, file);
  const JsonNode root(document.root, file, "");
  if (const auto version = root.find("version"); version && version->string() != "1.0") {
    version->unsupported("the version " + shown(version->string()) + " is not supported");
  }
  size_t steps = 0;
  std::vector<Normalizer> normalizers;
  if (const auto node = root.find("normalizer")) {
    for_each_step(*node, "normalizers", steps, [&](const std::string& type, const JsonNode& step) {
      normalizers.push_back(read_normalizer(type, step));
    });
  }
  std::vector<PreTokenizer> pre_tokenizers;
  if (const auto node = root.find("pre_tokenizer")) {
    for_each_step(*node, "pretokenizers", steps,
                  [&](const std::string& type, const JsonNode& step) {
                    for (PreTokenizer& words : read_pre_tokenizer(type, step)) {
                      pre_tokenizers.push_back(std::move(words));
                    }
                  });
  }
  Model model = read_model(root.at("model"), document);
  const Vocabulary& vocabulary = vocabulary_of(model);
  AddedTokens added = read_added_tokens(root, vocabulary, normalizers);
  std::vector<TemplatePiece> post = read_post_processor(root, {vocabulary, added});
  return Parts{std::move(model),          std::move(added), std::move(normalizers),
               std::move(pre_tokenizers), std::move(post),  read_decoders(root),
               !root.find("decoder")};
}

}  // namespace llorch::tok
