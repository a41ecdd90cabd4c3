#include "tokenizer/sentencepiece_model.h"

#include <cmath>

#include "base/error.h"
#include "tokenizer/protobuf.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace llorch::tok {
namespace {

[[noreturn]] void corrupt(const std::string& file, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile, file + ": " + what);
}

// Numbers of fields in sentencepiece_model.proto.
SentencePieceModel::Piece read_piece(ProtobufReader reader, const std::string& file, size_t id) {
  SentencePieceModel::Piece piece;
  while (reader.next()) {
    switch (reader.field()) {
      case 1:
        piece.text = reader.bytes();
        break;
      case 2:
        piece.score = reader.float32();
        break;
      case 3: {
        const uint64_t type = reader.varint();
        if (type < 1 || type > 6) {
          corrupt(file,
                  "piece " + std::to_string(id) + " has the unknown type " + std::to_string(type));
        }
        piece.type = static_cast<PieceType>(type);
        break;
      }
      default:
        break;
    }
  }
  if (piece.text.empty()) corrupt(file, "piece " + std::to_string(id) + " is empty");
  if (!is_valid_utf8(piece.text)) {
    corrupt(file, "piece " + std::to_string(id) + " is not valid UTF-8");
  }
  if (!std::isfinite(piece.score)) {
    corrupt(file, "piece " + std::to_string(id) + " has a score that is not a number");
  }
  return piece;
}

void read_trainer(ProtobufReader reader, const std::string& file, SentencePieceModel& model) {
  while (reader.next()) {
    switch (reader.field()) {
      case 3: {
        const uint64_t kind = reader.varint();
        if (kind < 1 || kind > 4) corrupt(file, "has the unknown type " + std::to_string(kind));
        model.kind = static_cast<SentencePieceModel::Kind>(kind);
        break;
      }
      case 24:
        model.whitespace_as_suffix = reader.boolean();
        break;
      case 35:
        model.byte_fallback = reader.boolean();
        break;
      case 40:
        model.unk_id = reader.int32();
        break;
      case 41:
        model.bos_id = reader.int32();
        break;
      case 42:
        model.eos_id = reader.int32();
        break;
      case 43:
        model.pad_id = reader.int32();
        break;
      default:
        break;
    }
  }
}

void read_normalizer(ProtobufReader reader, SentencePieceModel& model) {
  while (reader.next()) {
    switch (reader.field()) {
      case 2:
        model.charsmap = reader.bytes();
        break;
      case 3:
        model.add_dummy_prefix = reader.boolean();
        break;
      case 4:
        model.remove_extra_whitespaces = reader.boolean();
        break;
      case 5:
        model.escape_whitespaces = reader.boolean();
        break;
      default:
        break;
    }
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& file) {
  SentencePieceModel model;
  ProtobufReader reader(bytes, file);
  while (reader.next()) {
    switch (reader.field()) {
      case 1:
        if (model.pieces.size() > static_cast<size_t>(kMaxTokenId)) {
          corrupt(file, "has more than " + std::to_string(kMaxTokenId) + " pieces");
        }
        model.pieces.push_back(read_piece(reader.message(), file, model.pieces.size()));
        break;
      case 2:
        read_trainer(reader.message(), file, model);
        break;
      case 3:
        read_normalizer(reader.message(), model);
        break;
      default:
        break;
    }
  }
  if (model.pieces.empty()) corrupt(file, "holds no pieces");
  const auto size = static_cast<int64_t>(model.pieces.size());
  for (int32_t* id : {&model.unk_id, &model.bos_id, &model.eos_id, &model.pad_id}) {
    if (*id < 0) *id = -1;
    // An older file may name the defaults without having them.
    if (*id >= size) *id = -1;
  }
  return model;
}

}  // namespace llorch::tok
