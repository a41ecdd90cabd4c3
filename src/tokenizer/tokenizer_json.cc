#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <initializer_list>
#include <set>

#include "base/error.h"
#include "tokenizer/json_document.h"
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

Normalizer read_normalizer(const std::string& type, const JsonNode& node) {
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  if (type == "Lowercase") return LowercaseText{};
  if (type == "Prepend") return PrependText{node.at("prepend").string()};
  if (type == "Strip") {
    return StripText{node.at("strip_left").boolean(), node.at("strip_right").boolean()};
  }
  if (type == "Replace") {
    return ReplaceText{read_pattern(node.at("pattern")), node.at("content").string()};
  }
  unknown(node, "normalizer", type);
}

PreTokenizer read_pre_tokenizer(const std::string& type, const JsonNode& node) {
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
  unknown(node, "pre-tokenizer", type);
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
  unknown(node, "decoder", type);
}

Vocabulary read_vocabulary(const TokenizerDocument& document, const std::string& file) {
  Vocabulary vocabulary;
  vocabulary.reserve(document.vocab_ids.size());
  for (size_t i = 0; i < document.vocab_ids.size(); ++i) {
    const std::string_view token = document.vocab_tokens[i];
    const int64_t id = document.vocab_ids[i];
    const auto corrupt = [&](const std::string& reason) {
      throw_corrupt_at(file, "model.vocab." + shown(token), reason);
    };
    if (id < 0 || id > kMaxTokenId) {
      corrupt("the id must be from 0 to " + std::to_string(kMaxTokenId) + "; got " +
              std::to_string(id));
    }
    if (!vocabulary.add(token, static_cast<int32_t>(id))) corrupt("is listed twice");
  }
  if (const std::optional<int32_t> id = vocabulary.index_ids()) {
    throw_corrupt_at(file, "model.vocab", "two tokens have the id " + std::to_string(*id));
  }
  return vocabulary;
}

std::vector<BpeMerge> read_merges(const TokenizerDocument& document, const Vocabulary& vocabulary,
                                  const std::string& file) {
  std::vector<BpeMerge> merges;
  merges.reserve(document.merge_is_pair.size());
  std::string joined;
  size_t next = 0;
  for (size_t i = 0; i < document.merge_is_pair.size(); ++i) {
    const auto corrupt = [&](const std::string& reason) {
      throw_corrupt_at(file, "model.merges[" + std::to_string(i) + "]", reason);
    };
    std::string_view left = document.merges[next++], right;
    if (document.merge_is_pair[i]) {
      right = document.merges[next++];
    } else {
      if (left.substr(0, 8) == "#version") continue;  // the first line of an old merges file
      const size_t space = left.find(' ');
      if (space == std::string_view::npos || left.find(' ', space + 1) != std::string_view::npos) {
        corrupt("must be two tokens with one space between; got \"" + shown(left) + "\"");
      }
      right = left.substr(space + 1);
      left = left.substr(0, space);
    }
    const auto id_of = [&](std::string_view token) {
      const std::optional<int32_t> id = vocabulary.id_of(token);
      if (!id) corrupt("the token \"" + shown(token) + "\" is not in the vocabulary");
      return *id;
    };
    joined.assign(left).append(right);
    merges.push_back({id_of(left), id_of(right), id_of(joined)});
  }
  return merges;
}

Bpe read_bpe(const JsonNode& node, const TokenizerDocument& document) {
  if (const auto dropout = node.find("dropout"); dropout && !dropout->is_zero()) {
    dropout->unsupported("merges that are left out by chance are not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = node.find(key);
    if (affix && !affix->string().empty()) affix->unsupported("affixes are not supported");
  }
  if (!document.has_vocab) node.corrupt("has no vocab that is an object");
  if (!document.has_merges) node.corrupt("has no merges that are an array");
  BpeOptions options;
  if (const auto token = node.find("unk_token")) options.unk_token = token->string();
  options.fuse_unk = node.boolean_or("fuse_unk", false);
  options.byte_fallback = node.boolean_or("byte_fallback", false);
  options.ignore_merges = node.boolean_or("ignore_merges", false);
  Vocabulary vocabulary = read_vocabulary(document, node.file());
  const std::vector<BpeMerge> merges = read_merges(document, vocabulary, node.file());
  return Bpe(std::move(vocabulary), merges, std::move(options));
}

Model read_model(const JsonNode& node, const TokenizerDocument& document) {
  // Files of the library's first versions name no type; then merges tell.
  const auto type = node.find("type");
  const std::string name = type ? type->string() : document.has_merges ? "BPE" : "";
  if (name == "BPE") return read_bpe(node, document);
  if (!type) node.corrupt("has no type");
  type->unsupported("the model " + shown(name) + " is not supported");
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
    const std::optional<int32_t> known = vocabulary.id_of(token.content);
    token.id = known ? *known : next_id++;
    token.normalized_content = token.content;
    if (token.normalized) {
      Text text = original_text(token.content);
      run_normalizers(normalizers, text);
      token.normalized_content = std::move(text.bytes);
    }
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
                    pre_tokenizers.push_back(read_pre_tokenizer(type, step));
                  });
  }
  std::vector<Decoder> decoders;
  const auto decoder = root.find("decoder");
  if (decoder) {
    for_each_step(*decoder, "decoders", steps, [&](const std::string& type, const JsonNode& step) {
      decoders.push_back(read_decoder(type, step));
    });
  }
  Model model = read_model(root.at("model"), document);
  const Vocabulary& vocabulary = std::get<Bpe>(model).vocabulary();
  AddedTokens added = read_added_tokens(root, vocabulary, normalizers);
  std::vector<TemplatePiece> post = read_post_processor(root, {vocabulary, added});
  return Parts{std::move(model),
               std::move(added),
               std::move(normalizers),
               std::move(pre_tokenizers),
               std::move(post),
               std::move(decoders),
               !decoder};
}

}  // namespace llorch::tok
