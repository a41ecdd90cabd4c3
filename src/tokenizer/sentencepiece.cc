#include "tokenizer/sentencepiece.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizer/added_token_list.h"
#include "tokenizer/json_node.h"
#include "tokenizer/piece_merges.h"
#include "tokenizer/sentencepiece_model.h"

namespace llorch::tok {
namespace {

constexpr char kMark[] = "\u2581";

enum class Class { kGeneral, kLlama, kGemma };

std::string beside(const std::string& file, const char* name) {
  const size_t slash = file.find_last_of("/\\");
  return (slash == std::string::npos ? "" : file.substr(0, slash + 1)) + name;
}

// What tokenizer_config.json says; what transformers' class says where it is silent.
struct Config {
  Class kind = Class::kGeneral;
  bool legacy = false;
  bool add_prefix_space = true;
  bool add_bos = false, add_eos = false;
  struct Named {
    AddedToken token;
    bool has_flags = false;  // else the content alone is given
  };
  std::map<std::string, Named> named;   // by role: bos_token, ...
  std::map<int64_t, AddedToken> added;  // added_tokens_decoder, by id
  std::vector<std::string> more_special;
};

AddedToken special_token(std::string content) {
  AddedToken token;
  token.content = std::move(content);
  token.special = true;
  return token;
}

// A string, or an object with `content` and flags.
AddedToken read_token(const JsonNode& node, bool special) {
  AddedToken token;
  if (node.is_string()) {
    token.content = node.string();
    token.special = special;
  } else {
    token.content = node.at("content").string();
    token.single_word = node.boolean_or("single_word", false);
    token.lstrip = node.boolean_or("lstrip", false);
    token.rstrip = node.boolean_or("rstrip", false);
    token.special = special || node.boolean_or("special", false);
    token.normalized = node.boolean_or("normalized", !token.special);
  }
  return token;
}

Class read_class(const JsonNode& root) {
  const auto node = root.find("tokenizer_class");
  if (!node) return Class::kGeneral;
  std::string name = node->string();
  if (name.size() > 4 && name.substr(name.size() - 4) == "Fast") name.resize(name.size() - 4);
  if (name == "LlamaTokenizer" || name == "CodeLlamaTokenizer") return Class::kLlama;
  if (name == "GemmaTokenizer") return Class::kGemma;
  for (const char* general : {"PreTrainedTokenizer", "TokenizersBackend", "MistralTokenizer"}) {
    if (name == general) return Class::kGeneral;
  }
  // Others renumber the pieces or cut text by rules of their own.
  node->unsupported("the class " + shown(name) + " is not supported without a tokenizer.json");
}

constexpr const char* kRoles[] = {"unk_token", "bos_token", "eos_token", "pad_token",
                                  "sep_token", "cls_token", "mask_token"};

Config read_config(std::string_view text, const std::string& file) {
  Config config;
  if (text.empty()) return config;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) throw_corrupt_at(file, "", "is not a JSON object");
  const JsonNode root(json, file, "");
  config.kind = read_class(root);
  config.legacy = root.boolean_or("legacy", false);
  config.add_prefix_space = root.boolean_or("add_prefix_space", true);
  config.add_bos = root.boolean_or("add_bos_token", false);
  config.add_eos = root.boolean_or("add_eos_token", false);
  for (const char* role : kRoles) {
    if (const auto node = root.find(role)) {
      config.named.emplace(role, Config::Named{read_token(*node, true), !node->is_string()});
    }
  }
  if (const auto list = root.find("added_tokens_decoder")) {
    for (const auto& [id, node] : list->members()) {
      if (id.empty() || id.size() > 8 || id.find_first_not_of("0123456789") != std::string::npos) {
        node.corrupt("is not the id of a token");
      }
      config.added.emplace(std::stoll(id), read_token(node, false));
    }
  }
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = root.find(key);
    if (!list || list->is_object()) continue;
    for (const JsonNode& node : list->items()) {
      config.more_special.push_back(read_token(node, true).content);
    }
  }
  return config;
}

// The roles that the class fills by itself.
void add_default_roles(const SentencePieceModel& model, Config& config) {
  const auto set = [&](const char* role, std::string_view content) {
    config.named.try_emplace(role, Config::Named{special_token(std::string(content))});
  };
  const auto set_piece = [&](const char* role, int32_t id) {
    if (id >= 0) set(role, model.pieces[static_cast<size_t>(id)].text);
  };
  switch (config.kind) {
    case Class::kLlama:
      set("unk_token", "<unk>");
      set("bos_token", "<s>");
      set("eos_token", "</s>");
      break;
    case Class::kGemma:
      set("unk_token", "<unk>");
      set("bos_token", "<bos>");
      set("eos_token", "<eos>");
      set("pad_token", "<pad>");
      set("mask_token", "<mask>");
      break;
    case Class::kGeneral:
      set_piece("unk_token", model.unk_id);
      set_piece("bos_token", model.bos_id);
      set_piece("eos_token", model.eos_id);
      break;
  }
}

// Where added_tokens_decoder gives a piece another name, as fine-tuned models do with pieces that
// were kept free, the piece has that name.
void rename_pieces(const Config& config, SentencePieceModel& model) {
  if (config.added.empty()) return;
  std::set<std::string_view> texts;
  for (const SentencePieceModel::Piece& piece : model.pieces) texts.insert(piece.text);
  for (const auto& [id, token] : config.added) {
    if (id >= static_cast<int64_t>(model.pieces.size()) || token.content.empty()) continue;
    if (texts.insert(token.content).second) {
      model.pieces[static_cast<size_t>(id)].text = token.content;
    }
  }
}

Vocabulary make_vocabulary(const SentencePieceModel& model, const std::string& file) {
  Vocabulary vocabulary;
  vocabulary.reserve(model.pieces.size());
  int32_t id = 0;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (!vocabulary.add(piece.text, id++)) {
      throw_corrupt_at(file, "", "the piece \"" + shown(piece.text) + "\" is listed twice");
    }
  }
  vocabulary.index_ids();
  return vocabulary;
}

Model make_bpe(const SentencePieceModel& model, const Config& config, Vocabulary vocabulary,
               const std::string& file) {
  const bool has_class = config.kind != Class::kGeneral;
  const auto unk = config.named.find("unk_token");
  BpeOptions options;
  // transformers' Llama has none: a character that is not even bytes is dropped.
  if (config.kind != Class::kLlama && unk != config.named.end()) {
    options.unk_token = unk->second.token.content;
  }
  options.fuse_unk = true;
  options.byte_fallback = has_class || model.byte_fallback;
  // By score as SentencePiece merges. transformers 5.23 goes by id instead, which is the same but
  // for pieces of marks alone, as Llama's and Mistral's files have them: these come last.
  std::vector<float> scores;
  for (const SentencePieceModel::Piece& piece : model.pieces) scores.push_back(piece.score);
  std::vector<bool> barred(model.pieces.size(), false);
  for (size_t id = 0; id < barred.size() && !has_class; ++id) {
    const PieceType type = model.pieces[id].type;
    barred[id] =
        type == PieceType::kControl || type == PieceType::kUnknown || type == PieceType::kByte;
  }
  const std::vector<BpeMerge> merges =
      merges_of_pieces(vocabulary, MergeOrder::kScore, scores, barred, file);
  return Bpe(std::move(vocabulary), merges, std::move(options));
}

Model make_unigram(const SentencePieceModel& model, Vocabulary vocabulary) {
  std::vector<double> scores;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    scores.push_back(static_cast<double>(piece.score));
  }
  UnigramOptions options;
  if (model.unk_id >= 0) options.unk_id = model.unk_id;
  options.byte_fallback = model.byte_fallback;
  return Unigram(std::move(vocabulary), std::move(scores), options);
}

Model make_model(const SentencePieceModel& model, const Config& config, const std::string& file) {
  using Kind = SentencePieceModel::Kind;
  if (model.whitespace_as_suffix) {
    throw_unsupported_at(file, "trainer_spec", "treat_whitespace_as_suffix is not supported");
  }
  if (model.kind == Kind::kWord || model.kind == Kind::kChar) {
    throw_unsupported_at(file, "trainer_spec",
                         std::string("the model type ") +
                             (model.kind == Kind::kWord ? "WORD" : "CHAR") + " is not supported");
  }
  Vocabulary vocabulary = make_vocabulary(model, file);
  if (model.kind == Kind::kUnigram) return make_unigram(model, std::move(vocabulary));
  return make_bpe(model, config, std::move(vocabulary), file);
}

AddedTokens make_added_tokens(const SentencePieceModel& model, const Config& config,
                              const Vocabulary& vocabulary, const std::string& file) {
  AddedTokenList list;
  std::set<std::string_view> roles;
  for (const auto& [role, named] : config.named) roles.insert(named.token.content);
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    const bool control = piece.type == PieceType::kControl;
    if (!control && piece.type != PieceType::kUserDefined) continue;
    AddedToken token = special_token(std::string(piece.text));
    token.special = control || roles.count(piece.text) > 0;
    list.put(std::move(token));
  }
  for (const auto& [id, token] : config.added) {
    AddedToken copy = token;
    copy.special = copy.special || roles.count(copy.content) > 0;
    list.put(std::move(copy));
  }
  for (const char* role : kRoles) {
    const auto named = config.named.find(role);
    if (named == config.named.end()) continue;
    if (named->second.has_flags) {
      list.put(named->second.token);
    } else {
      list.put_special(named->second.token.content);
    }
  }
  for (const std::string& content : config.more_special) list.put_special(content);
  return list.make(vocabulary, {}, file);
}

std::vector<TemplatePiece> make_post(const Config& config, const AddedTokens& added) {
  std::vector<TemplatePiece> post;
  const auto put = [&](bool wanted, const char* role) {
    const auto named = config.named.find(role);
    if (!wanted || named == config.named.end()) return;
    if (const auto id = added.id_of(named->second.token.content)) post.push_back({false, {*id}});
  };
  put(config.add_bos, "bos_token");
  post.push_back({true, {}});
  put(config.add_eos, "eos_token");
  return post;
}

// As SentencePiece's normalizer: runs of spaces become one, none is left at the start and, whatever
// a mark there once was, none at the end.
std::vector<Normalizer> general_normalizers(const SentencePieceModel& model,
                                            const std::string& file) {
  const std::string space = model.escape_whitespaces ? kMark : " ";
  std::vector<Normalizer> steps;
  const auto replace = [&](const std::string& regex, const std::string& content) {
    steps.emplace_back(ReplaceText{Pattern::regex(regex), content});
  };
  if (!model.charsmap.empty()) {
    try {
      steps.emplace_back(Charsmap::parse(model.charsmap));
    } catch (const DamagedCharsmap& e) {
      throw_corrupt_at(file, "normalizer_spec.precompiled_charsmap", e.what());
    }
  }
  if (model.remove_extra_whitespaces) replace(" {2,}", " ");
  if (model.add_dummy_prefix) steps.emplace_back(PrependText{space, true});
  if (model.remove_extra_whitespaces) {
    const std::string prefix = model.add_dummy_prefix ? space : "";
    replace("\\A" + prefix + " ", prefix);
  }
  if (model.escape_whitespaces) steps.emplace_back(ReplaceText{Pattern::literal(" "), kMark});
  if (model.remove_extra_whitespaces) replace("(?<!" + space + ")" + space + "+\\z", "");
  return steps;
}

std::vector<Decoder> make_decoders(bool byte_fallback, bool has_prefix) {
  std::vector<Decoder> steps = {ReplaceDecoder{Pattern::literal(kMark), " "}};
  if (byte_fallback) steps.push_back(ByteFallbackDecoder{});
  steps.push_back(FuseDecoder{});
  if (has_prefix) steps.push_back(StripDecoder{" ", 1, 0});
  return steps;
}

}  // namespace

Parts read_sentencepiece(std::string_view bytes, std::string_view config_text,
                         const std::string& file) {
  SentencePieceModel model = parse_sentencepiece(bytes, file);
  const std::string config_file = beside(file, "tokenizer_config.json");
  Config config = read_config(config_text, config_file);
  add_default_roles(model, config);
  rename_pieces(config, model);
  Model made = make_model(model, config, file);
  AddedTokens added = make_added_tokens(model, config, vocabulary_of(made), config_file);
  std::vector<TemplatePiece> post = make_post(config, added);

  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  bool has_prefix = false, byte_fallback = true;
  switch (config.kind) {
    case Class::kLlama: {
      using Prepend = MetaspaceWords::Prepend;
      has_prefix = config.add_prefix_space;
      pre_tokenizers.push_back(MetaspaceWords{kMark,
                                              !has_prefix     ? Prepend::kNever
                                              : config.legacy ? Prepend::kAlways
                                                              : Prepend::kFirst,
                                              false});
      break;
    }
    case Class::kGemma:
      normalizers.push_back(ReplaceText{Pattern::literal(" "), kMark});
      break;
    case Class::kGeneral:
      normalizers = general_normalizers(model, file);
      has_prefix = model.add_dummy_prefix;
      byte_fallback = model.byte_fallback;
      break;
  }
  return Parts{std::move(made),
               std::move(added),
               std::move(normalizers),
               std::move(pre_tokenizers),
               std::move(post),
               make_decoders(byte_fallback, has_prefix),
               false};
}

}  // namespace llorch::tok
