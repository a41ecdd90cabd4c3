#include "tokenizer/normalizer.h"

#include <algorithm>

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

void run(const PrependText& step, Text& text) { prepend(step.prefix, text); }

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

void run(const LowercaseText&, Text& text) {
  std::string lower;
  lower.reserve(text.bytes.size());
  size_t origin = 0;
  for (size_t at = 0; at < text.bytes.size(); at += char_bytes(text.bytes, at)) {
    append_lowercase(lower, char_at(text.bytes, at));
    if (at < text.origin_bytes) origin = lower.size();
  }
  text.set(std::move(lower), origin);
}

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
