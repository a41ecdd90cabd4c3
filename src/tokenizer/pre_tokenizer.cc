#include "tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "tokenizer/byte_level.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

// Turns the stretches of one piece into words, which stay in order. Adjacent ones are joined as
// `behavior` says; kRemoved leaves out what matched.
void apply_behavior(SplitBehavior behavior, const std::vector<Stretch>& found, size_t offset,
                    std::vector<Piece>& out) {
  const size_t first = out.size();
  const auto put = [&](const Stretch& s) {
    out.push_back({offset + s.begin, offset + s.end, kText});
  };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Stretch& s : found) put(s);
      break;
    case SplitBehavior::kRemoved:
      for (const Stretch& s : found) {
        if (!s.is_match) put(s);
      }
      break;
    case SplitBehavior::kContiguous:
    case SplitBehavior::kMergedWithPrevious: {
      bool previous = false;
      for (const Stretch& s : found) {
        const bool join = behavior == SplitBehavior::kContiguous ? s.is_match == previous
                                                                 : s.is_match && !previous;
        if (join && out.size() > first) {
          out.back().end = offset + s.end;
        } else {
          put(s);
        }
        previous = s.is_match;
      }
      break;
    }
    case SplitBehavior::kMergedWithNext: {
      bool previous = false;
      for (size_t i = found.size(); i-- > 0;) {
        if (found[i].is_match && !previous && out.size() > first) {
          out.back().begin = offset + found[i].begin;
        } else {
          put(found[i]);
        }
        previous = found[i].is_match;
      }
      std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
      break;
    }
  }
  out.erase(std::remove_if(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
                           [](const Piece& p) { return p.begin == p.end; }),
            out.end());
}

// `find(text, stretches)` cuts the text of one piece.
template <typename Find>
void split(Pieces& pieces, SplitBehavior behavior, const Find& find) {
  std::vector<Piece> cut;
  cut.reserve(pieces.pieces.size());
  std::vector<Stretch> found;
  for (const Piece& piece : pieces.pieces) {
    if (piece.id != kText) {
      cut.push_back(piece);
      continue;
    }
    find(pieces.view(piece), found);
    apply_behavior(behavior, found, piece.begin, cut);
  }
  pieces.pieces = std::move(cut);
}

void split(Pieces& pieces, SplitBehavior behavior, const Pattern& pattern, bool invert) {
  split(pieces, behavior, [&](std::string_view text, std::vector<Stretch>& found) {
    pattern.find(text, found);
    if (!invert) return;
    for (Stretch& stretch : found) stretch.is_match = !stretch.is_match;
  });
}

// Each character of the class is a match of its own.
void split_at_chars(Pieces& pieces, SplitBehavior behavior, bool (*is_in_class)(char32_t)) {
  split(pieces, behavior, [&](std::string_view text, std::vector<Stretch>& found) {
    found.clear();
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t next = at + char_bytes(text, at);
      if (is_in_class(char_at(text, at))) {
        if (done < at) found.push_back({done, at, false});
        found.push_back({at, next, true});
        done = next;
      }
      at = next;
    }
    if (done < text.size()) found.push_back({done, text.size(), false});
  });
}

// Runs `change(Text&)` on every piece of text.
template <typename Change>
void rewrite(Pieces& pieces, const Change& change) {
  std::string bytes;
  bytes.reserve(pieces.text.bytes.size() + pieces.text.bytes.size() / 4);
  size_t origin = 0;
  for (Piece& piece : pieces.pieces) {
    const size_t begin = bytes.size();
    const bool at_origin = piece.begin < pieces.text.origin_bytes;
    if (piece.id != kText) {
      bytes += pieces.view(piece);
    } else {
      Text part = pieces.part(piece);
      change(part);
      bytes += part.bytes;
      pieces.text.check(bytes.size());
      if (at_origin) origin = begin + part.origin_bytes;
    }
    piece.begin = begin;
    piece.end = bytes.size();
  }
  pieces.text.set(std::move(bytes), origin);
}

void run(const ByteLevelWords& step, Pieces& pieces) {
  if (step.add_prefix_space) {
    rewrite(pieces, [](Text& text) {
      if (text.bytes[0] != ' ') prepend(" ", text);
    });
  }
  if (step.use_regex) {
    static const Pattern gpt2 = Pattern::regex(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
    split(pieces, SplitBehavior::kIsolated, gpt2, false);
  }
  std::string bytes;
  bytes.reserve(pieces.text.bytes.size() * 3 / 2);
  size_t origin = 0;
  for (Piece& piece : pieces.pieces) {
    const size_t begin = bytes.size();
    if (piece.id != kText) {
      bytes += pieces.view(piece);
    } else {
      for (const char c : pieces.view(piece)) {
        append_byte_level(bytes, static_cast<unsigned char>(c));
      }
    }
    pieces.text.check(bytes.size());
    if (piece.begin < pieces.text.origin_bytes) origin = bytes.size();
    piece.begin = begin;
    piece.end = bytes.size();
  }
  pieces.text.set(std::move(bytes), origin);
}

void run(const SplitWords& step, Pieces& pieces) {
  split(pieces, step.behavior, step.pattern, step.invert);
}

void run(const DigitsWords& step, Pieces& pieces) {
  split_at_chars(pieces, step.individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                 is_numeric);
}

void run(const PunctuationWords& step, Pieces& pieces) {
  split_at_chars(pieces, step.behavior, is_punctuation);
}

void run(const WhitespaceWords&, Pieces& pieces) {
  // Rust's \w has the two joiners, Oniguruma's has not; both are one class between brackets.
  static const Pattern words = Pattern::regex(R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)");
  split(pieces, SplitBehavior::kRemoved, words, true);
}

void run(const WhitespaceSplitWords&, Pieces& pieces) {
  split_at_chars(pieces, SplitBehavior::kRemoved, is_whitespace);
}

void run(const FixedLengthWords& step, Pieces& pieces) {
  split(pieces, SplitBehavior::kIsolated, [&](std::string_view text, std::vector<Stretch>& found) {
    found.clear();
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
      for (size_t i = 0; i < step.chars && end < text.size(); ++i) end += char_bytes(text, end);
      found.push_back({begin, end, false});
    }
  });
}

void run(const MetaspaceWords& step, Pieces& pieces) {
  static const Pattern space = Pattern::literal(" ");
  using Prepend = MetaspaceWords::Prepend;
  rewrite(pieces, [&step](Text& text) {
    replace_all(space, step.replacement, text);
    const bool wanted = step.prepend == Prepend::kAlways ||
                        (step.prepend == Prepend::kFirst && text.origin_bytes > 0);
    if (wanted && text.bytes.compare(0, step.replacement.size(), step.replacement) != 0) {
      prepend(step.replacement, text);
    }
  });
  if (step.split) {
    split(pieces, SplitBehavior::kMergedWithNext, Pattern::literal(step.replacement), false);
  }
}

}  // namespace

void run_pre_tokenizers(const std::vector<PreTokenizer>& steps, Pieces& pieces) {
  for (const PreTokenizer& step : steps) {
    std::visit([&pieces](const auto& s) { run(s, pieces); }, step);
  }
}

}  // namespace llorch::tok
