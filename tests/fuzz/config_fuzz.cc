// config.json, and after a NUL byte generation_config.json, of any bytes: refused by an Error, or
// within the bounds that the rest of the worker counts on.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  const auto generation = end == text.npos ? std::string_view() : text.substr(end + 1);
  try {
    const auto c = llorch::parse_model_config(text.substr(0, end), generation, "config.json");
    CHECK(c.layers > 0 && c.hidden > 0 && c.ffn > 0 && c.vocab > 0 && c.context > 0);
    CHECK(c.heads > 0 && c.kv_heads > 0 && c.heads % c.kv_heads == 0);
    CHECK(c.head_dim > 0 && c.head_dim % 2 == 0);
    CHECK((int64_t{c.heads} + 2 * c.kv_heads) * c.head_dim <= INT32_MAX);
    CHECK(c.window.size() == static_cast<size_t>(c.layers));
    CHECK(c.rope_of_layer.size() == static_cast<size_t>(c.layers));
    for (const int rope : c.rope_of_layer) {
      CHECK(rope >= -1 && rope < static_cast<int>(c.ropes.size()));
    }
    CHECK(c.moe.layers.empty() || c.moe.layers.size() == static_cast<size_t>(c.layers));
    CHECK(c.moe.layers.empty() ||
          (c.moe.ffn > 0 && c.moe.top_k > 0 && c.moe.top_k <= c.moe.experts));
    for (const llorch::Rope& rope : c.ropes) {
      CHECK(rope.dims > 0 && rope.dims <= c.head_dim && rope.trained >= 0);
      CHECK(rope.inv_freq.size() * 2 == static_cast<size_t>(rope.dims));
      CHECK(rope.long_inv_freq.empty() || rope.long_inv_freq.size() == rope.inv_freq.size());
      for (const auto* list : {&rope.inv_freq, &rope.long_inv_freq}) {
        for (const float value : *list) {
          CHECK(std::isfinite(value) && value > 0);
        }
      }
      CHECK(std::isfinite(rope.factor));
    }
    CHECK(std::isfinite(c.attention_scale) && std::isfinite(c.embed_scale));
  } catch (const llorch::Error&) {
  }
  return 0;
}
