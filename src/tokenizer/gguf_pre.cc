#include "tokenizer/gguf_pre.h"

#include <string>

namespace llorch::tok {
namespace {

// From the tokenizer.json of the models that a name stands for.
constexpr char kGpt4[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                         R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                          R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kGpt4o[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kTekken[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kDeepseekLetters[] =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF})"
    R"(\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F})"
    R"(\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481})"
    R"(\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD})"
    R"(\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45})"
    R"(\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D})"
    R"(\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06})"
    R"(\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr char kDeepseekPunctuation[] =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr char kDeepseekHan[] = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

PreTokenizer split(const char* pattern) {
  return SplitWords{Pattern::regex(pattern), SplitBehavior::kIsolated, false};
}
PreTokenizer byte_level(bool use_regex) { return ByteLevelWords{false, use_regex}; }
PreTokenizer digits() { return DigitsWords{true}; }

GgufPre one_split(const char* pattern) { return {{split(pattern), byte_level(false)}}; }

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  for (const std::string_view other : names) {
    if (name == other) return true;
  }
  return false;
}

}  // namespace

std::optional<GgufPre> gguf_pre(std::string_view name) {
  if (is_one_of(name, {"llama-bpe", "llama3", "llama-v3"})) {
    GgufPre pre = one_split(kGpt4);
    pre.ignore_merges = pre.add_bos = true;
    return pre;
  }
  if (name == "smaug-bpe") {  // Llama 3's words without a bos token: SmolLM3
    GgufPre pre = one_split(kGpt4);
    pre.ignore_merges = true;
    return pre;
  }
  if (name == "dbrx") return one_split(kGpt4);  // Phi-4
  if (name == "qwen2") {
    GgufPre pre = one_split(kQwen2);
    pre.nfc = true;
    return pre;
  }
  if (name == "deepseek-r1-qwen") return one_split(kQwen2);
  if (name == "gpt-4o") return one_split(kGpt4o);
  if (name == "llama4") {
    GgufPre pre = one_split(kGpt4o);
    pre.ignore_merges = true;
    return pre;
  }
  if (name == "tekken") {
    GgufPre pre = one_split(kTekken);
    pre.ignore_merges = pre.add_bos = true;
    return pre;
  }
  if (is_one_of(name, {"gpt-2", "phi-2"})) return GgufPre{{byte_level(true)}};
  if (name == "mpt") {
    GgufPre pre{{byte_level(true)}};
    pre.nfc = true;
    return pre;
  }
  if (is_one_of(name, {"smollm", "starcoder", "refact"}))
    return GgufPre{{digits(), byte_level(true)}};
  if (name == "command-r") {
    GgufPre pre{{digits(), byte_level(true)}};
    pre.nfc = true;
    return pre;
  }
  if (name == "deepseek-llm") {
    return GgufPre{{split("[\\r\\n]"), split(kDeepseekLetters), split(kDeepseekPunctuation),
                    split("\\s+$"), split(kDeepseekHan), digits(), byte_level(false)}};
  }
  if (name == "deepseek-coder") {
    return GgufPre{{split("[\\r\\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"),
                    split(kDeepseekHan), digits(), byte_level(false)}};
  }
  return std::nullopt;
}

}  // namespace llorch::tok
