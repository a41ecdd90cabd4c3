#include "tokenizer/normalizer.h"

#include <algorithm>

#include "tokenizer/byte_level.h"

namespace llorch::tok {
namespace {

void run(NormalForm form, Text& text) {
  // The first character's own form stands for it.
  if (text.origin_bytes > 0) {
    text.origin_bytes =
        normalize(std::string_view(text.bytes).substr(0, text.origin_bytes), form).size();
  }
  text.bytes = normalize(text.bytes, form);
  text.origin_bytes = std::min(text.origin_bytes, text.bytes.size());
}

void run(const ReplaceText& step, Text& text) { replace_all(step.pattern, step.content, text); }

void run(const PrependText& step, Text& text) {
  if (!step.at_start_only || text.origin_bytes > 0) prepend(step.prefix, text);
}

void run(const StripText& step, Text& text) {
  const std::string_view all = text.bytes;
  size_t begin = 0, end = all.size();
  while (step.left && begin < end && is_whitespace(char_at(all, begin))) {
    begin += char_bytes(all, begin);
  }
  while (step.right && begin < end) {
    const size_t at = char_before(all, end);
    if (!is_whitespace(char_at(all, at))) break;
    end = at;
  }
  text.origin_bytes -= std::min(text.origin_bytes, begin);
  text.bytes = std::string(all.substr(begin, end - begin));
}

// `append(out, c)` puts what becomes of each character.
template <typename Append>
void map_chars(Text& text, const Append& append) {
  std::string out;
  out.reserve(text.bytes.size());
  size_t origin = 0;
  for (size_t at = 0; at < text.bytes.size(); at += char_bytes(text.bytes, at)) {
    append(out, char_at(text.bytes, at));
    if (at < text.origin_bytes) origin = out.size();
    text.check(out.size());
  }
  text.set(std::move(out), origin);
}

void run(const LowercaseText&, Text& text) { map_chars(text, append_lowercase); }

void run(const StripAccentsText&, Text& text) {
  map_chars(text, [](std::string& out, char32_t c) {
    if (!is_combining_mark(c)) append_utf8(out, c);
  });
}

void run(const NmtText&, Text& text) {
  const auto goes = [](char32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
           c == 0x8F || c == 0x9F;
  };
  const auto is_space = [](char32_t c) {
    return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  };
  map_chars(text, [&](std::string& out, char32_t c) {
    if (!goes(c)) append_utf8(out, is_space(c) ? U' ' : c);
  });
}

void run(const ByteLevelText&, Text& text) {
  map_chars(text, [](std::string& out, char32_t c) {
    std::string bytes;
    append_utf8(bytes, c);
    for (const char byte : bytes) append_byte_level(out, static_cast<unsigned char>(byte));
  });
}

bool is_cjk_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void run(const BertText& step, Text& text) {
  if (step.clean_text) {
    map_chars(text, [](std::string& out, char32_t c) {
      const bool is_space = c == '\t' || c == '\n' || c == '\r';
      if (!is_space && (c == 0 || c == 0xFFFD || is_other(c))) return;
      append_utf8(out, is_space || is_whitespace(c) ? U' ' : c);
    });
  }
  if (step.handle_chinese_chars) {
    map_chars(text, [](std::string& out, char32_t c) {
      const bool apart = is_cjk_ideograph(c);
      if (apart) out += ' ';
      append_utf8(out, c);
      if (apart) out += ' ';
    });
  }
  if (step.strip_accents) {
    run(NormalForm::kNfd, text);
    map_chars(text, [](std::string& out, char32_t c) {
      if (!is_nonspacing_mark(c)) append_utf8(out, c);
    });
  }
  if (step.lowercase) run(LowercaseText{}, text);
}

void run(const Charsmap& map, Text& text) { map.rewrite(text); }

}  // namespace

void replace_all(const Pattern& pattern, std::string_view content, Text& text) {
  if (text.bytes.empty()) return;
  std::vector<Stretch> found;
  pattern.find(text.bytes, found);
  if (found.size() == 1 && !found[0].is_match) return;
  std::string out;
  size_t origin = 0;
  for (const Stretch& stretch : found) {
    // New text stands for what the last byte it replaces stood for.
    const size_t last = stretch.end == 0 ? 0 : stretch.end - 1;
    if (stretch.is_match) {
      out += content;
      if (last < text.origin_bytes || stretch.end == 0) origin = out.size();
    } else {
      out.append(text.bytes, stretch.begin, stretch.end - stretch.begin);
      if (stretch.begin < text.origin_bytes) {
        origin = out.size() - (stretch.end - std::min(stretch.end, text.origin_bytes));
      }
    }
    text.check(out.size());
  }
  text.set(std::move(out), origin);
}

void prepend(std::string_view prefix, Text& text) {
  if (text.bytes.empty()) return;
  text.check(text.bytes.size() + prefix.size());
  text.bytes.insert(0, prefix);
  if (text.origin_bytes > 0) text.origin_bytes += prefix.size();
}

void run_normalizers(const std::vector<Normalizer>& steps, Text& text) {
  for (const Normalizer& step : steps) {
    std::visit([&text](const auto& s) { run(s, text); }, step);
  }
}

}  // namespace llorch::tok
