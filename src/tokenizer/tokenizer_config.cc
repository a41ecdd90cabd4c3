#include "tokenizer/tokenizer_config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace llorch {

std::optional<int32_t> eos_token_id(std::string_view tokenizer_config, const Tokenizer& tokenizer,
                                    const std::string& file) {
  if (tokenizer_config.empty()) return std::nullopt;
  const auto config = nlohmann::json::parse(tokenizer_config, nullptr, false);
  if (!config.is_object()) throw Error(ErrorCode::kCorruptFile, file + ": is not a JSON object");
  auto eos = config.find("eos_token");
  if (eos == config.end() || eos->is_null()) return std::nullopt;
  const nlohmann::json& token = eos->is_object() ? eos->value("content", nlohmann::json()) : *eos;
  if (!token.is_string()) {
    throw Error(ErrorCode::kCorruptFile, file + ": eos_token: want a string or an added token");
  }
  return tokenizer.token_id(token.get_ref<const std::string&>());
}

}  // namespace llorch
