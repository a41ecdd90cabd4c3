#include "tokenizer/stream_decoder.h"

#include <algorithm>
#include <utility>

#include "tokenizer/unicode.h"

namespace llorch {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop)
    : tokenizer_(&tokenizer) {
  for (std::string& text : stop) {
    if (text.empty() || !tok::is_valid_utf8(text)) continue;
    Stop made{std::move(text), {0, 0}, 0};
    for (size_t length = 1; length < made.text.size(); ++length) {
      size_t match = made.shorter[length];
      while (match > 0 && made.text[match] != made.text[length]) match = made.shorter[match];
      made.shorter.push_back(made.text[match] == made.text[length] ? match + 1 : 0);
    }
    stops_.push_back(std::move(made));
  }
}

// Never called on a complete match: that ends the output.
void StreamDecoder::Stop::advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = shorter[matched];
  if (text[matched] == byte) ++matched;
}

std::string StreamDecoder::take_whole_characters(bool at_end) {
  std::string text;
  size_t at = 0;
  while (at < bytes_.size()) {
    const tok::Utf8Step step = tok::step_utf8(bytes_, at);
    if (step.kind == tok::Utf8Step::Kind::kUnfinished && !at_end) break;
    if (step.kind == tok::Utf8Step::Kind::kValid) {
      text.append(bytes_, at, step.bytes);
    } else {
      const size_t marks = tokenizer_->replaces_each_byte() ? step.bytes : 1;
      for (size_t i = 0; i < marks; ++i) text += tok::kReplacement;
    }
    at += step.bytes;
  }
  bytes_.erase(0, at);
  return text;
}

std::string StreamDecoder::release(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const Stop* found = nullptr;
    for (Stop& stop : stops_) {
      stop.advance(text[i]);
      if (stop.matched == stop.text.size() && (!found || stop.text.size() > found->text.size())) {
        found = &stop;
      }
    }
    if (found != nullptr) {
      held_ += text.substr(0, i + 1);
      held_.resize(held_.size() - found->text.size());
      stopped_ = found->text;
      return std::exchange(held_, {});
    }
  }
  size_t may_begin = 0;
  for (const Stop& stop : stops_) may_begin = std::max(may_begin, stop.matched);
  held_ += text;
  std::string out = held_.substr(0, held_.size() - may_begin);
  held_.erase(0, out.size());
  return out;
}

std::string StreamDecoder::push(int32_t id) {
  if (stopped_ || tokenizer_->is_special(id)) return {};
  bytes_ += tokenizer_->token_bytes(id);
  return release(take_whole_characters(false));
}

std::string StreamDecoder::finish() {
  if (stopped_) return {};
  std::string text = release(take_whole_characters(true));
  if (!stopped_) text += std::exchange(held_, {});
  return text;
}

}  // namespace llorch
