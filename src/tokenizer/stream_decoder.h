// Token ids of one output, one at a time, into text that can be sent: whole UTF-8, nothing of a stop
// sequence. Knows nothing of requests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace llorch {

// Belongs to one output; one thread at a time. The tokenizer must outlive it.
class StreamDecoder {
 public:
  // The output continues a prompt, so the first token keeps its leading space.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // Text that may be sent now: everything but an unfinished UTF-8 character and an end that may be
  // the start of a stop sequence. Special tokens give no text. Bytes that can never become UTF-8
  // give U+FFFD. After stopped() there is no more text.
  std::string push(int32_t id);
  // What was held back, once the output has ended without a stop sequence.
  std::string finish();
  // The stop sequence found: the one that ends first in the output; of several that end together,
  // the longest.
  const std::optional<std::string>& stopped() const { return stopped_; }

 private:
  std::string release(bool at_end);

  const Tokenizer* tokenizer_;
  std::vector<std::string> stop_;
  std::string bytes_;  // of an unfinished character
  std::string held_;   // whole characters that may begin a stop sequence
  std::optional<std::string> stopped_;
};

}  // namespace llorch
