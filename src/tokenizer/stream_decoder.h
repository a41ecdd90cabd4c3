// Token ids of one output, one at a time, into text that can be sent: whole UTF-8, nothing of a
// stop sequence. Knows nothing of requests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace llorch {

// Belongs to one output; one thread at a time. The tokenizer must outlive it.
class StreamDecoder {
 public:
  // The output continues a prompt, so the first token keeps its leading space. Stop sequences are
  // UTF-8; an empty one, or one that is not UTF-8, is never found.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // Text that may be sent now: everything but an unfinished UTF-8 character and an end that may be
  // the start of a stop sequence. Special tokens give no text. Bytes that can never become UTF-8
  // give U+FFFD. After stopped() there is no more text. All text together is decode()'s, but that a
  // whole run of byte-fallback tokens is U+FFFD to decode() where a part of it is not UTF-8, which
  // for what has been sent comes too late.
  std::string push(int32_t id);
  // What was held back, once the output has ended without a stop sequence.
  std::string finish();
  // The stop sequence found: the one whose last byte comes first in the output; of several that end
  // at the same byte, the longest.
  const std::optional<std::string>& stopped() const { return stopped_; }

 private:
  // One stop sequence and how much of it the text ends with (Knuth, Morris, Pratt).
  struct Stop {
    std::string text;
    std::vector<size_t> shorter;  // by length matched: the next shorter match to fall back on
    size_t matched = 0;
    void advance(char byte);
  };
  std::string take_whole_characters(bool at_end);
  std::string release(std::string_view text);

  const Tokenizer* tokenizer_;
  std::vector<Stop> stops_;
  std::string bytes_;  // of an unfinished character
  std::string held_;   // text that may be the start of a stop sequence, and no more
  std::optional<std::string> stopped_;
};

}  // namespace llorch
