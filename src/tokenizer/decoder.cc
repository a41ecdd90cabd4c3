#include "tokenizer/decoder.h"

#include <optional>
#include <utility>

#include "base/error.h"
#include "tokenizer/byte_fallback.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr size_t kMaxRunningBytes = 64 * 1024;  // of one token
constexpr size_t kMaxTextBytes = size_t{128} << 20;

std::string join(const std::vector<std::string>& tokens, std::string_view between = "") {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i != 0) text += between;
    text += tokens[i];
  }
  return text;
}

std::string byte_level(const std::string& token) {
  return bytes_of_byte_level(token).value_or(token);
}

std::string strip(const StripDecoder& step, const std::string& token) {
  const size_t length = step.content.size();
  size_t begin = 0, end = token.size();
  for (size_t i = 0; i < step.start && token.compare(begin, length, step.content) == 0; ++i) {
    begin += length;
  }
  for (size_t i = 0; i < step.stop && end >= begin + length &&
                     token.compare(end - length, length, step.content) == 0;
       ++i) {
    end -= length;
  }
  return token.substr(begin, end - begin);
}

// Throws Error{kUnsupported} above `most_bytes`: replacements, chained by a damaged file, could
// make text as long as they like.
std::string replace(const ReplaceDecoder& step, const std::string& token, size_t most_bytes) {
  std::vector<Stretch> found;
  step.pattern.find(token, found);
  std::string out;
  for (const Stretch& stretch : found) {
    if (stretch.is_match) {
      out += step.content;
    } else {
      out.append(token, stretch.begin, stretch.end - stretch.begin);
    }
    if (out.size() > most_bytes) {
      throw Error(ErrorCode::kUnsupported, "[tokenizer] the decoder makes a text too long");
    }
  }
  return out;
}

std::string metaspace(const MetaspaceDecoder& step, const std::string& token, bool first) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    const size_t length = char_bytes(token, at);
    if (token.compare(at, length, step.replacement) != 0) {
      out.append(token, at, length);
    } else if (!first || !step.drop_first) {
      out += ' ';
    }
    at += length;
  }
  return out;
}

std::string replace_each(const std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  return out.append(text, done);
}

std::string word_piece(const WordPieceDecoder& step, const std::string& token, bool first) {
  std::string out = token;
  if (!first) {
    if (token.compare(0, step.prefix.size(), step.prefix) == 0) {
      out.erase(0, step.prefix.size());
    } else {
      out.insert(0, " ");
    }
  }
  if (!step.cleanup) return out;
  static constexpr std::pair<std::string_view, std::string_view> kCleanups[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kCleanups) out = replace_each(out, from, to);
  return out;
}

void run(const ByteLevelDecoder&, std::vector<std::string>& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += byte_level(token);
  tokens = {to_valid_utf8(bytes)};
}

// A run of bytes that is not UTF-8 as a whole gives one U+FFFD for each of its bytes.
void run(const ByteFallbackDecoder&, std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (is_valid_utf8(bytes)) {
      out.push_back(bytes);
    } else {
      out.insert(out.end(), bytes.size(), std::string(kReplacement));
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const std::optional<char> byte = byte_of_token(token)) {
      bytes += *byte;
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void run(const FuseDecoder&, std::vector<std::string>& tokens) { tokens = {join(tokens)}; }

void run(const StripDecoder& step, std::vector<std::string>& tokens) {
  for (std::string& token : tokens) token = strip(step, token);
}

void run(const ReplaceDecoder& step, std::vector<std::string>& tokens) {
  for (std::string& token : tokens) token = replace(step, token, kMaxTextBytes);
}

void run(const MetaspaceDecoder& step, std::vector<std::string>& tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = metaspace(step, tokens[i], i == 0);
}

void run(const WordPieceDecoder& step, std::vector<std::string>& tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = word_piece(step, tokens[i], i == 0);
}

}  // namespace

std::string decode_tokens(const std::vector<Decoder>& steps, bool no_decoder,
                          std::vector<std::string> tokens) {
  if (no_decoder) return join(tokens, " ");
  for (const Decoder& step : steps) {
    std::visit([&tokens](const auto& s) { run(s, tokens); }, step);
  }
  return join(tokens);
}

std::string running_bytes(const std::vector<Decoder>& steps, bool no_decoder,
                          std::string_view token) {
  if (no_decoder) return " " + std::string(token);
  std::string bytes(token);
  bool fused = false, raw = false;
  for (const Decoder& step : steps) {
    if (std::holds_alternative<ByteLevelDecoder>(step)) {
      if (!raw) bytes = byte_level(bytes);
      fused = raw = true;
    } else if (std::holds_alternative<ByteFallbackDecoder>(step)) {
      const std::optional<char> byte = raw || fused ? std::nullopt : byte_of_token(bytes);
      if (byte) {
        bytes = *byte;
        raw = true;  // perhaps a part of a character: no step for characters applies
      }
    } else if (std::holds_alternative<FuseDecoder>(step)) {
      fused = true;
    } else if (raw) {
      continue;
    } else if (const auto* strips = std::get_if<StripDecoder>(&step)) {
      if (!fused) bytes = strip(*strips, bytes);  // else it concerns the ends of the whole text
    } else if (const auto* replaces = std::get_if<ReplaceDecoder>(&step)) {
      bytes = replace(*replaces, bytes, kMaxRunningBytes);
    } else if (const auto* marks = std::get_if<MetaspaceDecoder>(&step)) {
      bytes = metaspace(*marks, bytes, fused);  // fused, all is the first token
    } else if (const auto* words = std::get_if<WordPieceDecoder>(&step)) {
      bytes = word_piece(*words, bytes, fused);
    }
  }
  return bytes;
}

}  // namespace llorch::tok
