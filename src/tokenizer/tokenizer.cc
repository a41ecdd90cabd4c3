#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tokenizer/gguf_tokenizer.h"
#include "tokenizer/parts.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/unicode.h"

namespace llorch {
namespace {

using tok::Piece;
using tok::Pieces;

// All tokens' bytes together: what a damaged file's replacements could multiply.
constexpr size_t kMaxRunningBytes = size_t{256} << 20;

// The bytes of each id in running text. Memory follows the number of tokens, not the largest id.
class RunningBytes {
 public:
  void add(int32_t id, std::string_view bytes) {
    ids_.push_back(id);
    bytes_ += bytes;
    ends_.push_back(bytes_.size());
  }
  size_t size() const { return bytes_.size(); }
  std::string_view of(int32_t id) const {
    auto place = static_cast<size_t>(id);
    if (place >= ids_.size() || ids_[place] != id) {
      const auto found = std::lower_bound(ids_.begin(), ids_.end(), id);
      if (found == ids_.end() || *found != id) return {};
      place = static_cast<size_t>(found - ids_.begin());
    }
    const size_t begin = place == 0 ? 0 : ends_[place - 1];
    return std::string_view(bytes_).substr(begin, ends_[place] - begin);
  }

 private:
  std::vector<int32_t> ids_;  // ascending
  std::string bytes_;
  std::vector<size_t> ends_;
};

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(tok::Parts made);

  const tok::Vocabulary& vocabulary() const { return tok::vocabulary_of(parts.model); }
  // What the library's decoder gets for an id.
  std::optional<std::string_view> token_of(int32_t id) const;
  void normalize(Pieces& pieces) const;
  void encode_pieces(const Pieces& pieces, std::vector<int32_t>& ids) const;

  tok::Parts parts;
  int32_t end_id = 0;
  RunningBytes running;
};

Tokenizer::Impl::Impl(tok::Parts made) : parts(std::move(made)) {
  std::vector<int32_t> ids;
  vocabulary().for_each([&](std::string_view, int32_t id) { ids.push_back(id); });
  for (const tok::AddedToken& token : parts.added.tokens()) ids.push_back(token.id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (!ids.empty()) end_id = ids.back() + 1;
  for (const int32_t id : ids) {
    running.add(id, tok::running_bytes(parts.decoders, parts.no_decoder, *token_of(id)));
    if (running.size() > kMaxRunningBytes) {
      throw Error(ErrorCode::kUnsupported, "[tokenizer] the decoder makes tokens too long");
    }
  }
}

std::optional<std::string_view> Tokenizer::Impl::token_of(int32_t id) const {
  if (const tok::AddedToken* token = parts.added.find(id)) return token->normalized_content;
  return vocabulary().token_of(id);
}

void Tokenizer::Impl::normalize(Pieces& pieces) const {
  if (parts.normalizers.empty()) return;
  std::string bytes;
  std::vector<Piece> kept;
  size_t origin = 0;
  for (const Piece& piece : pieces.pieces) {
    const bool at_origin = piece.begin < pieces.text.origin_bytes;
    tok::Text part = pieces.part(piece);
    if (piece.id == tok::kText) tok::run_normalizers(parts.normalizers, part);
    if (part.bytes.empty()) continue;
    const size_t begin = bytes.size();
    if (at_origin) origin = begin + part.origin_bytes;
    bytes += part.bytes;
    pieces.text.check(bytes.size());
    kept.push_back({begin, bytes.size(), piece.id});
  }
  pieces.pieces = std::move(kept);
  pieces.text.set(std::move(bytes), origin);
}

template <typename Model>
void encode_pieces_with(const Model& model, const Pieces& pieces, std::vector<int32_t>& ids) {
  typename Model::Workspace workspace(pieces.text.bytes.size());
  for (const Piece& piece : pieces.pieces) {
    if (piece.id == tok::kText) {
      model.encode(pieces.view(piece), workspace, ids);
    } else {
      ids.push_back(piece.id);
    }
  }
}

void Tokenizer::Impl::encode_pieces(const Pieces& pieces, std::vector<int32_t>& ids) const {
  std::visit([&](const auto& model) { encode_pieces_with(model, pieces, ids); }, parts.model);
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

template <typename Read>
Tokenizer Tokenizer::make(const std::string& file, const Read& read) {
  try {
    return Tokenizer(std::make_unique<const Impl>(read()));
  } catch (const Error& e) {
    // A pattern that is too much work for the file's own tokens.
    if (e.code() != ErrorCode::kBadRequest) throw;
    throw Error(ErrorCode::kUnsupported, file + ": " + e.what());
  }
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& file) {
  return make(file, [&] { return tok::read_tokenizer_json(json, file); });
}

Tokenizer Tokenizer::from_sentencepiece(std::string_view model, std::string_view tokenizer_config,
                                        const std::string& file) {
  return make(file, [&] { return tok::read_sentencepiece(model, tokenizer_config, file); });
}

Tokenizer Tokenizer::from_gguf(const GgufVocabulary& vocabulary, const std::string& file) {
  return make(file, [&] { return tok::read_gguf_vocabulary(vocabulary, file); });
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  Pieces pieces;
  pieces.text =
      tok::original_text(tok::is_valid_utf8(utf8) ? std::string(utf8) : tok::to_valid_utf8(utf8));
  if (!pieces.text.bytes.empty()) {
    pieces.pieces.push_back({0, pieces.text.bytes.size(), tok::kText});
  }
  impl_->parts.added.extract(pieces, false, options.parse_special);
  impl_->normalize(pieces);
  impl_->parts.added.extract(pieces, true, options.parse_special);
  tok::run_pre_tokenizers(impl_->parts.pre_tokenizers, pieces);

  std::vector<int32_t> ids;
  for (const tok::TemplatePiece& piece : impl_->parts.post) {
    if (piece.is_text) {
      impl_->encode_pieces(pieces, ids);
    } else if (options.add_special_tokens) {
      ids.insert(ids.end(), piece.special.begin(), piece.special.end());
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::optional<std::string_view> token = impl_->token_of(id);
    if (!token || (skip_special && impl_->parts.added.is_special_content(*token))) continue;
    tokens.emplace_back(*token);
  }
  return tok::decode_tokens(impl_->parts.decoders, impl_->parts.no_decoder, std::move(tokens));
}

int32_t Tokenizer::vocab_size() const { return impl_->end_id; }

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  if (const std::optional<int32_t> id = impl_->parts.added.id_of(content)) return id;
  return impl_->vocabulary().id_of(content);
}

bool Tokenizer::is_special(int32_t id) const {
  const std::optional<std::string_view> token = impl_->token_of(id);
  return token && impl_->parts.added.is_special_content(*token);
}

bool Tokenizer::replaces_each_byte() const {
  const auto& decoders = impl_->parts.decoders;
  return std::any_of(decoders.begin(), decoders.end(), [](const tok::Decoder& step) {
    return std::holds_alternative<tok::ByteFallbackDecoder>(step);
  });
}

std::string_view Tokenizer::token_bytes(int32_t id) const { return impl_->running.of(id); }

}  // namespace llorch
