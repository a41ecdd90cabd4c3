#include "model/open_model.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "formats/gguf_testing.h"
#include "formats/json_reader.h"
#include "formats/testing.h"
#include "model/model_config.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::f32;
using testing::gguf_array;
using testing::GgufFile;
using testing::GgufType;
using testing::little;
using testing::TempFolder;
using testing::u32;

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

std::string floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) {
    bytes += f32(value);
  }
  return bytes;
}

std::string zeros(size_t count) { return std::string(count * sizeof(float), '\0'); }

// What every architecture's file has; 8 dimensions, 2 heads of 4, a vocabulary of 3.
GgufFile metadata(const std::string& architecture) {
  GgufFile file;
  file.text("general.architecture", architecture);
  const auto number = [&](const char* name, uint32_t value) {
    file.number(architecture + "." + name, value);
  };
  number("block_count", 1);
  number("embedding_length", 8);
  number("feed_forward_length", 12);
  number("context_length", 64);
  number("attention.head_count", 2);
  number("attention.head_count_kv", 1);
  file.real(architecture + ".attention.layer_norm_rms_epsilon", 1e-5F);
  file.real(architecture + ".attention.layer_norm_epsilon", 1e-5F);
  return file.tensor("token_embd.weight", {8, 3}, kF32, zeros(24));
}

class OpenModel : public ::testing::Test {
 protected:
  Checkpoint open(const GgufFile& file) const {
    folder_.write("m.gguf", file.build());
    return open_model(folder_.file("m.gguf"));
  }
  ModelConfig config(const GgufFile& file) const {
    const Checkpoint c = open(file);
    return parse_model_config(c.config(), c.generation_config(), c.config_file());
  }
  void expect_corrupt(const GgufFile& file, const std::vector<std::string>& parts) const {
    expect_error(ErrorCode::kCorruptFile, parts, [&] { config(file); });
  }
  void expect_unsupported(const GgufFile& file, const std::vector<std::string>& parts) const {
    expect_error(ErrorCode::kUnsupported, parts, [&] { config(file); });
  }
  static std::vector<float> values(const StoredTensor& tensor) {
    std::vector<std::byte> scratch;
    const auto bytes = tensor.read(&scratch);
    std::vector<float> out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

 private:
  TempFolder folder_;
};

TEST_F(OpenModel, ReadsSizesOfEveryArchitecture) {
  const std::pair<const char*, const char*> architectures[] = {
      {"llama", "llama"},   {"mistral", "mistral"}, {"phi2", "phi"},
      {"phi3", "phi3"},     {"qwen2", "qwen2"},     {"qwen3", "qwen3"},
      {"gemma2", "gemma2"}, {"smollm3", "smollm3"}, {"gemma3", "gemma3_text"}};
  for (const auto& [name, model_type] : architectures) {
    const ModelConfig c = config(metadata(name));
    EXPECT_EQ(c.architecture, model_type);
    EXPECT_EQ(c.layers, 1);
    EXPECT_EQ(c.hidden, 8);
    EXPECT_EQ(c.ffn, 12);
    EXPECT_EQ(c.context, 64);
    EXPECT_EQ(c.heads, 2);
    EXPECT_EQ(c.kv_heads, 1);
    EXPECT_EQ(c.head_dim, 4);
    EXPECT_EQ(c.vocab, 3);
    EXPECT_EQ(c.norm_eps, 1e-5F);
    EXPECT_TRUE(c.tied_head);
  }
  GgufFile untied = metadata("llama");
  untied.number("llama.attention.key_length", 6).number("llama.attention.value_length", 6);
  const ModelConfig c = config(untied.tensor("output.weight", {8, 3}, kF32, zeros(24)));
  EXPECT_EQ(c.head_dim, 6);
  EXPECT_FALSE(c.tied_head);
}

TEST_F(OpenModel, NamesTheKeyThatIsMissingOrWrong) {
  expect_unsupported(metadata("gpt2"), {"unsupported architecture 'gpt2'; supported: llama, "});
  expect_corrupt(GgufFile().number("a", 1), {"m.gguf: general.architecture: is missing"});
  GgufFile none;
  none.text("general.architecture", "llama");
  expect_corrupt(none, {"m.gguf: llama.block_count: is missing"});
  none.text("llama.block_count", "3");
  expect_corrupt(none, {"m.gguf: llama.block_count: must be an integer", "got string"});
  GgufFile no_embedding = metadata("llama");
  no_embedding.table.clear();
  no_embedding.tensors = 0;
  expect_corrupt(no_embedding, {"m.gguf: token_embd.weight: is missing"});
  GgufFile huge;
  huge.text("general.architecture", "llama").number("llama.block_count", 1u << 31);
  expect_corrupt(huge, {"m.gguf: llama.block_count: must be an integer from 1 to 4096"});
  expect_corrupt(metadata("llama").number("llama.attention.key_length", 1u << 20),
                 {"m.gguf: llama.attention.key_length: must be an integer from 1 to 4096"});
  expect_unsupported(metadata("llama").number("llama.attention.value_length", 8),
                     {"llama.attention.value_length: must be as attention.key_length"});
  expect_unsupported(metadata("llama").number("llama.rope.dimension_count", 2),
                     {"llama.rope.dimension_count: 2 of a head's 4 dimensions"});
  expect_unsupported(metadata("llama").real("llama.logit_scale", 0.5F), {"llama.logit_scale"});
  expect_unsupported(metadata("llama").real("llama.attn_logit_softcapping", 30),
                     {"llama.attn_logit_softcapping: is not supported for this architecture"});
  expect_unsupported(metadata("qwen2").number("qwen2.attention.sliding_window", 16),
                     {"qwen2.attention.sliding_window: is not supported"});
  expect_unsupported(metadata("qwen3").boolean("qwen3.attention.causal", false), {"causal"});
  expect_unsupported(metadata("llama").text("general.type", "adapter"),
                     {"general.type: 'adapter'"});
  config(metadata("llama").real("llama.logit_scale", 1).text("general.type", "model"));
}

TEST_F(OpenModel, ReadsRopes) {
  const auto with = [](const std::string& architecture, const std::string& type) {
    return metadata(architecture)
        .real(architecture + ".rope.freq_base", 100)
        .text(architecture + ".rope.scaling.type", type);
  };
  ASSERT_EQ(config(with("llama", "none")).ropes[0].inv_freq, (std::vector<float>{1, 0.1F}));
  expect_corrupt(with("llama", "linear"), {"llama.rope.scaling.factor: is missing"});
  const auto linear = config(with("llama", "linear").real("llama.rope.scaling.factor", 4));
  EXPECT_EQ(linear.ropes[0].inv_freq[0], 0.25F);
  EXPECT_EQ(linear.context, 256);
  expect_unsupported(with("llama", "longrope"), {"llama.rope.scaling.type: 'longrope'"});
  expect_corrupt(with("llama", "yarn").real("llama.rope.scaling.factor", 4),
                 {"llama.rope.scaling.original_context_length: is missing"});
  const auto yarn = config(with("llama", "yarn")
                               .real("llama.rope.scaling.factor", 4)
                               .number("llama.rope.scaling.original_context_length", 16)
                               .real("llama.rope.scaling.yarn_attn_factor", 0.5F));
  EXPECT_EQ(yarn.ropes[0].factor, 0.5F);
  EXPECT_NE(yarn.ropes[0].inv_freq, (std::vector<float>{1, 0.1F}));

  const auto factors = [](const std::vector<float>& values) {
    return metadata("llama")
        .real("llama.rope.freq_base", 100)
        .tensor("rope_freqs.weight", {values.size()}, kF32, floats(values));
  };
  EXPECT_EQ(config(factors({1, 8})).ropes[0].inv_freq, (std::vector<float>{1, 0.0125F}));
  expect_corrupt(factors({1, 8, 8}), {"factors", "3 factors for 2 pairs"});
  expect_corrupt(factors({1, 0}), {"rope_freqs.weight: holds a factor that is not from"});
  expect_corrupt(factors({1, NAN}), {"rope_freqs.weight: holds a factor"});

  GgufFile phi3 = metadata("phi3");
  phi3.number("phi3.rope.scaling.original_context_length", 16)
      .tensor("rope_factors_long.weight", {2}, kF32, floats({2, 4}));
  expect_corrupt(phi3, {"m.gguf: rope_factors_short.weight: is missing"});
  const auto longrope = config(phi3.tensor("rope_factors_short.weight", {2}, kF32, floats({1, 2})));
  EXPECT_EQ(longrope.ropes[0].trained, 16);
  EXPECT_EQ(longrope.ropes[0].long_inv_freq[0], 0.5F);
  EXPECT_EQ(config(metadata("phi2").number("phi2.rope.dimension_count", 2)).ropes[0].dims, 2);
}

TEST_F(OpenModel, ReadsWindowsAndWhatGemmaHas) {
  EXPECT_EQ(config(metadata("llama").number("llama.attention.sliding_window", 16)).window[0], 16);
  EXPECT_EQ(config(metadata("phi3").number("phi3.attention.sliding_window", 0)).window[0], 0);
  EXPECT_EQ(config(metadata("gemma3")).window[0], 0);
  const auto gemma2 = config(metadata("gemma2"));
  EXPECT_EQ(gemma2.window[0], 4096);
  EXPECT_EQ(gemma2.attention_softcap, 50);
  EXPECT_EQ(gemma2.attention_scale, 0.5F);
  const auto gemma3 = config(metadata("gemma3")
                                 .number("gemma3.attention.sliding_window", 16)
                                 .real("gemma3.rope.freq_base", 1e6F)
                                 .real("gemma3.rope.scaling.factor", 8)
                                 .text("gemma3.rope.scaling.type", "linear"));
  EXPECT_EQ(gemma3.window[0], 16);
  EXPECT_EQ(gemma3.ropes[0].inv_freq[0], 0.125F);
  EXPECT_EQ(gemma3.ropes[1].inv_freq[1], 0.01F);
  const auto pattern = [](GgufFile file) {
    return file.number("gemma3.attention.sliding_window", 16);
  };
  const std::string key = "gemma3.attention.sliding_window_pattern";
  EXPECT_EQ(config(pattern(metadata("gemma3").number(key, 1))).window[0], 0);
  const std::string full = gguf_array(GgufType::kBool, 1, little(0, 1));
  EXPECT_EQ(config(pattern(metadata("gemma3").value(key, GgufType::kArray, full))).window[0], 0);
  const std::string two = gguf_array(GgufType::kBool, 2, little(0, 2));
  expect_corrupt(pattern(metadata("gemma3").value(key, GgufType::kArray, two)),
                 {key + ": has 2 flags for 1 layers"});
}

TEST_F(OpenModel, ReadsExperts) {
  const auto moe = [](const std::string& architecture) {
    return metadata(architecture)
        .number(architecture + ".expert_count", 4)
        .number(architecture + ".expert_used_count", 2)
        .tensor("blk.0.ffn_gate_inp.weight", {8, 4}, kF32, zeros(32));
  };
  const auto mixtral = config(moe("llama"));
  EXPECT_EQ(mixtral.architecture, "mixtral");
  EXPECT_EQ(mixtral.moe.experts, 4);
  EXPECT_EQ(mixtral.moe.top_k, 2);
  expect_corrupt(moe("qwen3moe"), {"qwen3moe.expert_feed_forward_length: is missing"});
  const auto qwen3 = config(moe("qwen3moe").number("qwen3moe.expert_feed_forward_length", 5));
  EXPECT_EQ(qwen3.moe.ffn, 5);
  EXPECT_TRUE(qwen3.moe.renormalize);
  // The sizes by the tensors alone, as older files have it.
  const auto qwen2 = config(moe("qwen2moe")
                                .tensor("blk.0.ffn_up_exps.weight", {8, 6, 4}, kF32, zeros(192))
                                .tensor("blk.0.ffn_up_shexp.weight", {8, 7}, kF32, zeros(56)));
  EXPECT_EQ(qwen2.moe.ffn, 6);
  EXPECT_EQ(qwen2.moe.shared_ffn, 7);
  EXPECT_FALSE(qwen2.moe.renormalize);
  expect_unsupported(moe("llama").number("llama.expert_gating_func", 2),
                     {"llama.expert_gating_func: 2 is not supported"});
}

TEST_F(OpenModel, GivesTensorsTheirOtherNames) {
  const auto c =
      open(metadata("llama")
               .tensor("output_norm.weight", {8}, kF32, zeros(8))
               .tensor("blk.0.attn_q.weight", {1, 8}, kF32, floats({0, 2, 1, 3, 4, 6, 5, 7}))
               .tensor("blk.0.attn_k.bias", {4}, kF32, floats({0, 2, 1, 3}))
               .tensor("blk.0.ffn_down.weight", {32, 1}, kQ8_0, std::string(34, 1)));
  EXPECT_NE(c.find("model.embed_tokens.weight"), nullptr);
  EXPECT_NE(c.find("model.norm.weight"), nullptr);
  EXPECT_EQ(c.find("blk.0.attn_q.weight"), nullptr);
  const StoredTensor* q = c.find("model.layers.0.self_attn.q_proj.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->name, "blk.0.attn_q.weight");
  EXPECT_EQ(values(*q), (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(values(*c.find("model.layers.0.self_attn.k_proj.bias")),
            (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(c.find("model.layers.0.mlp.down_proj.weight")->dims, (std::vector<int64_t>{1, 32}));
}

TEST_F(OpenModel, TakesNormsLessOne) {
  const auto c = open(metadata("gemma2")
                          .tensor("blk.0.attn_norm.weight", {2}, kF32, floats({1.5F, 1}))
                          .tensor("blk.0.post_ffw_norm.weight", {1}, kF32, f32(3)));
  EXPECT_EQ(values(*c.find("model.layers.0.input_layernorm.weight")),
            (std::vector<float>{0.5F, 0}));
  EXPECT_EQ(values(*c.find("model.layers.0.post_feedforward_layernorm.weight")),
            (std::vector<float>{2}));
}

TEST_F(OpenModel, CutsStackedAndFusedTensors) {
  std::vector<float> numbers(16);
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<float>(i);
  }
  const std::string bytes = floats(numbers);
  const auto experts = open(metadata("qwen3moe")
                                .number("qwen3moe.expert_count", 2)
                                .number("qwen3moe.expert_used_count", 1)
                                .number("qwen3moe.expert_feed_forward_length", 2)
                                .tensor("blk.0.ffn_down_exps.weight", {2, 4, 2}, kF32, bytes)
                                .tensor("blk.0.ffn_gate_up_exps.weight", {2, 4, 2}, kF32, bytes));
  const auto expert = [&](const char* name) {
    return values(*experts.find("model.layers.0.mlp.experts." + std::string(name)));
  };
  EXPECT_EQ(expert("1.down_proj.weight"), (std::vector<float>{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(expert("0.gate_proj.weight"), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(expert("1.up_proj.weight"), (std::vector<float>{12, 13, 14, 15}));

  const auto old = open(metadata("llama")
                            .number("llama.expert_count", 2)
                            .number("llama.expert_used_count", 1)
                            .tensor("blk.0.ffn_gate.1.weight", {2, 4}, kF32, zeros(8)));
  EXPECT_NE(old.find("model.layers.0.block_sparse_moe.experts.1.w1.weight"), nullptr);

  // Two query heads, one of keys, one of values, each of four rows.
  const auto fused = open(metadata("llama").tensor("blk.0.attn_qkv.weight", {1, 16}, kF32, bytes));
  const auto part = [&](const char* name) {
    return values(*fused.find("model.layers.0.self_attn." + std::string(name)));
  };
  EXPECT_EQ(part("q_proj.weight"), (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(part("k_proj.weight"), (std::vector<float>{8, 10, 9, 11}));
  EXPECT_EQ(part("v_proj.weight"), (std::vector<float>{12, 13, 14, 15}));
}

TEST_F(OpenModel, RefusesTensorsItDoesNotKnow) {
  const auto with = [](const std::string& name, const std::vector<uint64_t>& dims) {
    size_t count = 1;
    for (const uint64_t dim : dims) {
      count *= dim;
    }
    return metadata("llama").tensor(name, dims, kF32, zeros(count));
  };
  for (const char* name :
       {"blk.0.attn_sinks.weight", "blk.x.attn_q.weight", "blk.0.weight", "v.patch_embd.weight",
        "blk.0.ffn_gate.x.weight", "blk..attn_q.weight"}) {
    expect_unsupported(with(name, {1}), {std::string("m.gguf: ") + name + ": is no tensor of"});
  }
  expect_corrupt(with("blk.0.attn_q.weight", {1, 6}), {"attn_q.weight: must have an even number"});
  expect_corrupt(with("blk.0.attn_qkv.weight", {1, 6}), {"attn_qkv.weight: must have rows for 4"});
  expect_corrupt(with("blk.0.ffn_up_exps.weight", {1, 6}), {"must stack 1 to 4096 matrices"});
  expect_corrupt(with("blk.0.ffn_up_exps.weight", {0, 4, 4000}), {"must stack 1 to 4096 matrices"});
  expect_corrupt(metadata("llama").tensor("blk.0.attn_k.bias", {32}, kQ8_0, std::string(34, 0)),
                 {"attn_k.bias: must have an even number of rows"});
  expect_corrupt(
      with("blk.0.attn_q.weight", {1, 8}).tensor("blk.0.attn_qkv.weight", {1, 16}, kF32, zeros(16)),
      {"is there in two forms"});
}

TEST_F(OpenModel, CollectsIdsAndTextsOfTheTokenizer) {
  const auto types = [](std::vector<uint32_t> values) {
    std::string bytes;
    for (const uint32_t value : values) bytes += u32(value);
    return gguf_array(GgufType::kI32, values.size(), bytes);
  };
  GgufFile file = metadata("llama");
  file.texts("tokenizer.ggml.tokens", {"<s>", "</s>", "<|im_end|>"})
      .value("tokenizer.ggml.token_type", GgufType::kArray, types({3, 3, 3}))
      .number("tokenizer.ggml.bos_token_id", 0)
      .number("tokenizer.ggml.eos_token_id", 1)
      .number("tokenizer.ggml.unknown_token_id", UINT32_MAX)
      .number("tokenizer.ggml.padding_token_id", 3)
      .boolean("tokenizer.ggml.add_bos_token", true)
      .text("tokenizer.chat_template", "{{ x }}");
  const auto c = open(file);
  EXPECT_EQ(parse_model_config(c.config(), c.generation_config(), "m").eos_ids,
            (std::vector<int32_t>{1, 2}));
  const auto texts = JsonReader::parse(c.tokenizer_config(), "t");
  EXPECT_EQ(texts.string("bos_token"), "<s>");
  EXPECT_EQ(texts.string("eos_token"), "</s>");
  EXPECT_FALSE(texts.contains("unk_token"));
  EXPECT_EQ(texts.boolean("add_bos_token"), true);
  EXPECT_EQ(texts.string("chat_template"), "{{ x }}");
  EXPECT_EQ(open(file.text("tokenizer.chat_template.tool_use", "tools")).tokenizer_config(),
            R"({"bos_token":"<s>","eos_token":"</s>","add_bos_token":true,"chat_template":[)"
            R"({"name":"default","template":"{{ x }}"},{"name":"tool_use","template":"tools"}]})");
  expect_corrupt(metadata("llama")
                     .texts("tokenizer.ggml.tokens", {"a"})
                     .number("tokenizer.ggml.eos_token_id", 1),
                 {"tokenizer.ggml.eos_token_id: 1 is not the id of one of the 1 tokens"});
}

}  // namespace
}  // namespace llorch
