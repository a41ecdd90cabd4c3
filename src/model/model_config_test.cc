#include "model/model_config.h"

#include <nlohmann/json.hpp>

#include "formats/testing.h"

namespace llorch {
namespace {

using nlohmann::json;
using testing::expect_error;

// As transformers writes them, cut to what is read.
json llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 300},
          {"hidden_size", 48},
          {"intermediate_size", 80},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 12},
          {"hidden_act", "silu"},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "default"}}},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", false},
          {"eos_token_id", 2}};
}

json with(json config, const json& changes) {
  for (const auto& item : changes.items()) {
    config[item.key()] = item.value();
  }
  return config;
}

json without(json config, const std::string& key) {
  config.erase(key);
  return config;
}

ModelConfig parse(const json& config, const std::string& generation = "") {
  return parse_model_config(config.dump(), generation, "dir/config.json");
}

void expect_corrupt(const json& config, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kCorruptFile, parts, [&] { parse(config); });
}

void expect_unsupported(const json& config, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kUnsupported, parts, [&] { parse(config); });
}

TEST(ModelConfig, ReadsLlama) {
  const auto c = parse(llama());
  EXPECT_EQ(c.family, Family::kLlama);
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.hidden, 48);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 12);
  EXPECT_EQ(c.ffn, 80);
  EXPECT_EQ(c.vocab, 300);
  EXPECT_EQ(c.context, 128);
  EXPECT_FLOAT_EQ(c.norm_eps, 1e-5f);
  EXPECT_EQ(c.act, Act::kSilu);
  EXPECT_FALSE(c.tied_head || c.qkv_bias || c.out_bias || c.mlp_bias);
  EXPECT_EQ(c.window, (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(c.ropes[0].dims, 12);
  EXPECT_EQ(c.ropes[0].inv_freq.size(), 6u);
  EXPECT_EQ(c.eos_ids, std::vector<int32_t>{2});
}

TEST(ModelConfig, FillsInWhatTransformersFillsIn) {
  json config = llama();
  for (const char* key :
       {"num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
        "rope_parameters", "attention_bias", "mlp_bias", "tie_word_embeddings", "eos_token_id"}) {
    for (const bool null : {true, false}) {
      json changed = config;
      if (null) {
        changed[key] = nullptr;
      } else {
        changed.erase(key);
      }
      EXPECT_NO_THROW(parse(changed)) << key;
    }
  }
  const auto kv = parse(without(config, "num_key_value_heads"));
  EXPECT_EQ(kv.kv_heads, 4);
  EXPECT_EQ(parse(with(config, {{"head_dim", nullptr}})).head_dim, 12);
  EXPECT_EQ(parse(with(config, {{"head_dim", 20}})).head_dim, 20);
  EXPECT_EQ(parse(without(config, "max_position_embeddings")).context, 2048);
  EXPECT_FLOAT_EQ(parse(without(config, "rms_norm_eps")).norm_eps, 1e-6f);
  const auto biased = parse(with(config, {{"attention_bias", true}, {"mlp_bias", true}}));
  EXPECT_TRUE(biased.qkv_bias && biased.out_bias && biased.mlp_bias);
  EXPECT_EQ(parse(with(config, {{"hidden_act", "gelu_pytorch_tanh"}})).act, Act::kGeluTanh);
}

TEST(ModelConfig, FindsTheFamilyByModelTypeElseByArchitecture) {
  EXPECT_EQ(parse(with(llama(), {{"model_type", "mistral"}})).family, Family::kMistral);
  EXPECT_EQ(parse(with(llama(), {{"model_type", "qwen2"}})).family, Family::kQwen2);
  const json untyped = without(llama(), "model_type");
  EXPECT_EQ(parse(untyped).family, Family::kLlama);
  EXPECT_EQ(parse(with(untyped, {{"architectures", {"MistralForCausalLM"}}})).family,
            Family::kMistral);
  const auto qwen = parse(with(untyped, {{"architectures", {"Qwen2ForCausalLM", "x"}}}));
  EXPECT_EQ(qwen.family, Family::kQwen2);
  EXPECT_EQ(qwen.architecture, "qwen2");
}

TEST(ModelConfig, RefusesOtherArchitecturesInTheAgreedWords) {
  const auto refused = [](const json& config) {
    try {
      parse(config);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      return std::string(e.what());
    }
    return std::string("nothing thrown");
  };
  const std::string supported =
      "; supported: llama, mistral, mixtral, phi, phi3, qwen2, qwen3, qwen2_moe, "
      "qwen3_moe, gemma2, gemma3_text, smollm3";
  EXPECT_EQ(refused({{"model_type", "falcon"}}), "unsupported architecture 'falcon'" + supported);
  EXPECT_EQ(refused({{"model_type", "LlamaForCausalLM"}}),
            "unsupported architecture 'LlamaForCausalLM'" + supported);
  EXPECT_EQ(refused({{"architectures", {"FalconForCausalLM"}}}),
            "unsupported architecture 'FalconForCausalLM'" + supported);
  EXPECT_EQ(refused({{"model_type", "a\nb"}}), "unsupported architecture 'a?b'" + supported);
  // A vision model is told apart from an unknown one.
  EXPECT_EQ(refused({{"model_type", "gemma3"}, {"vision_config", json::object()}}),
            "unsupported architecture 'gemma3'" + supported +
                "; a vision or audio tower (vision_config) is not supported");
  expect_corrupt(json::object(), {"dir/config.json: model_type: is missing"});
  expect_corrupt({{"architectures", json::array()}}, {"model_type: is missing"});
  expect_corrupt({{"model_type", 3}}, {"model_type: must be a string; got 3"});
  expect_corrupt({{"architectures", "LlamaForCausalLM"}}, {"architectures: must be a list"});
}

TEST(ModelConfig, GivesMistralItsWindow) {
  const json mistral = with(llama(), {{"model_type", "mistral"}, {"sliding_window", 16}});
  EXPECT_EQ(parse(mistral).window, (std::vector<int>{16, 16, 16}));
  EXPECT_EQ(parse(with(mistral, {{"sliding_window", nullptr}})).window,
            (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(parse(without(mistral, "sliding_window")).window, (std::vector<int>{4096, 4096, 4096}));
  EXPECT_EQ(parse(without(mistral, "max_position_embeddings")).context, 131072);
  expect_corrupt(with(mistral, {{"sliding_window", 0}}), {"sliding_window: must be an integer"});
  const json full = {"full_attention", "full_attention", "full_attention"};
  expect_unsupported(with(mistral, {{"layer_types", full}}), {"dir/config.json: layer_types: "});
}

TEST(ModelConfig, GivesQwen2ItsBiasesAndWindows) {
  const json qwen = with(llama(), {{"model_type", "qwen2"}, {"sliding_window", 16}});
  const auto plain = parse(qwen);
  EXPECT_TRUE(plain.qkv_bias);
  EXPECT_FALSE(plain.out_bias || plain.mlp_bias);
  EXPECT_EQ(plain.window, (std::vector<int>{0, 0, 0}));
  const json sliding = with(qwen, {{"use_sliding_window", true}, {"max_window_layers", 1}});
  EXPECT_EQ(parse(sliding).window, (std::vector<int>{0, 16, 16}));
  EXPECT_EQ(parse(without(sliding, "sliding_window")).window, (std::vector<int>{0, 4096, 4096}));
  EXPECT_EQ(parse(without(sliding, "max_window_layers")).window, (std::vector<int>{0, 0, 0}));
  const json types = {"sliding_attention", "full_attention", "full_attention"};
  EXPECT_EQ(parse(with(sliding, {{"layer_types", types}})).window, (std::vector<int>{16, 0, 0}));
  expect_corrupt(with(qwen, {{"layer_types", types}}), {"layer_types: has a sliding layer"});
  expect_corrupt(with(sliding, {{"layer_types", {"full_attention"}}}),
                 {"layer_types: lists 1 layers of 3"});
  expect_unsupported(with(sliding, {{"layer_types", {"a", "b", "chunked_attention"}}}),
                     {"layer_types: 'a' is not supported"});
}

TEST(ModelConfig, GivesMixtralItsExperts) {
  const json mixtral = with(without(llama(), "head_dim"), {{"model_type", "mixtral"}});
  const auto c = parse(mixtral);
  EXPECT_EQ(c.moe.layers, (std::vector<bool>{true, true, true}));
  EXPECT_EQ(c.moe.experts, 8);
  EXPECT_EQ(c.moe.top_k, 2);
  EXPECT_EQ(c.moe.ffn, 80);
  EXPECT_EQ(c.moe.shared_ffn, 0);
  EXPECT_TRUE(c.moe.renormalize);
  EXPECT_EQ(c.window, (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(parse(with(mixtral, {{"sliding_window", 9}})).window, (std::vector<int>{9, 9, 9}));
  // Absent is not null.
  const json wide = with(without(mixtral, "num_key_value_heads"),
                         {{"num_attention_heads", 16}, {"hidden_size", 64}});
  EXPECT_EQ(parse(wide).kv_heads, 8);
  EXPECT_EQ(parse(with(wide, {{"num_key_value_heads", nullptr}})).kv_heads, 16);
  expect_corrupt(with(mixtral, {{"num_experts_per_tok", 9}}), {"num_experts_per_tok: 9 are more"});
  expect_unsupported(with(mixtral, {{"num_local_experts", 1}, {"num_experts_per_tok", 1}}),
                     {"num_local_experts: a mixture of one expert"});
}

TEST(ModelConfig, GivesQwensMixturesTheirLayers) {
  const json moe = with(llama(), {{"model_type", "qwen2_moe"},
                                  {"num_experts", 6},
                                  {"num_experts_per_tok", 3},
                                  {"moe_intermediate_size", 20},
                                  {"shared_expert_intermediate_size", 24}});
  const auto c = parse(moe);
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_EQ(c.moe.layers, (std::vector<bool>{true, true, true}));
  EXPECT_EQ(c.moe.experts, 6);
  EXPECT_EQ(c.moe.top_k, 3);
  EXPECT_EQ(c.moe.ffn, 20);
  EXPECT_EQ(c.moe.shared_ffn, 24);
  EXPECT_FALSE(c.moe.renormalize);
  EXPECT_EQ(parse(with(moe, {{"decoder_sparse_step", 2}})).moe.layers,
            (std::vector<bool>{false, true, false}));
  EXPECT_EQ(parse(with(moe, {{"mlp_only_layers", {0, 2}}})).moe.layers,
            (std::vector<bool>{false, true, false}));
  // Every other one of the lower layers has the window.
  EXPECT_EQ(parse(with(moe, {{"use_sliding_window", true}, {"sliding_window", 9}})).window,
            (std::vector<int>{9, 0, 9}));
  const auto qwen3 = parse(with(moe, {{"model_type", "qwen3_moe"},
                                      {"use_sliding_window", true},
                                      {"norm_topk_prob", true},
                                      {"attention_bias", true}}));
  EXPECT_TRUE(qwen3.qk_norm && qwen3.qkv_bias && qwen3.out_bias && qwen3.moe.renormalize);
  EXPECT_EQ(qwen3.moe.shared_ffn, 0);
  EXPECT_EQ(qwen3.window, (std::vector<int>{4096, 4096, 4096}));
}

TEST(ModelConfig, GivesPhiItsNormsAndPart) {
  const json phi = with(llama(), {{"model_type", "phi"}, {"hidden_act", nullptr}});
  const auto c = parse(without(phi, "head_dim"));
  EXPECT_EQ(c.norm_kind, NormKind::kLayer);
  EXPECT_FLOAT_EQ(c.norm_eps, 1e-5f);  // rms_norm_eps is not its key
  EXPECT_EQ(c.act, Act::kGeluTanh);
  EXPECT_TRUE(c.qkv_bias && c.out_bias && c.head_bias);
  EXPECT_FALSE(c.qk_norm);
  EXPECT_EQ(c.ropes[0].dims, 6);
  EXPECT_EQ(parse(with(phi, {{"partial_rotary_factor", 1}})).ropes[0].dims, 12);
  EXPECT_TRUE(parse(with(phi, {{"qk_layernorm", true}})).qk_norm);
  expect_unsupported(with(phi, {{"partial_rotary_factor", 0.75}}),
                     {"partial_rotary_factor: must leave an even number", "got 9"});
}

TEST(ModelConfig, GivesGemmaItsScalesAndCaps) {
  json gemma = without(llama(), "head_dim");
  gemma = with(without(without(gemma, "tie_word_embeddings"), "rope_parameters"),
               {{"model_type", "gemma2"}, {"hidden_act", "relu"}});  // not its key
  const auto c = parse(gemma);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_TRUE(c.tied_head && c.norms_store_gain_minus_1);
  EXPECT_EQ(c.act, Act::kGeluTanh);
  EXPECT_FLOAT_EQ(c.embed_scale, 6.9282032f);
  EXPECT_FLOAT_EQ(c.attention_scale, 1.0f / 16);
  EXPECT_EQ(c.attention_softcap, 50);
  EXPECT_EQ(c.logit_softcap, 30);
  EXPECT_EQ(c.window, (std::vector<int>{4096, 0, 4096}));
  const auto plain = parse(
      with(gemma, {{"attn_logit_softcapping", nullptr}, {"final_logit_softcapping", nullptr}}));
  EXPECT_EQ(plain.attention_softcap, 0);
  EXPECT_EQ(plain.logit_softcap, 0);
  expect_unsupported(with(gemma, {{"use_bidirectional_attention", true}}),
                     {"use_bidirectional_attention: is not supported"});
  const json gemma3 = with(gemma, {{"model_type", "gemma3_text"}, {"sliding_window_pattern", 3}});
  const auto c3 = parse(with(gemma3, {{"attn_logit_softcapping", 9.0}}));
  EXPECT_TRUE(c3.qk_norm);
  EXPECT_EQ(c3.attention_softcap, 0);  // transformers reads the key, and uses it nowhere
  EXPECT_EQ(c3.logit_softcap, 0);
  EXPECT_EQ(c3.window, (std::vector<int>{4096, 4096, 0}));
  EXPECT_EQ(c3.rope_of_layer, (std::vector<int>{1, 1, 0}));
  EXPECT_FLOAT_EQ(parse(with(gemma3, {{"query_pre_attn_scalar", 25}})).attention_scale, 0.2f);
}

TEST(ModelConfig, LeavesSmolLm3sLayersWithoutRope) {
  const json smol = with(llama(), {{"model_type", "smollm3"}, {"num_hidden_layers", 5}});
  EXPECT_EQ(parse(smol).rope_of_layer, (std::vector<int>{0, 0, 0, -1, 0}));
  EXPECT_EQ(parse(with(smol, {{"no_rope_layer_interval", 2}})).rope_of_layer,
            (std::vector<int>{0, -1, 0, -1, 0}));
  const json listed = with(smol, {{"no_rope_layers", {1, 0, 1, 1, 0}}});
  EXPECT_EQ(parse(listed).rope_of_layer, (std::vector<int>{0, -1, 0, 0, -1}));
  EXPECT_EQ(parse(with(listed, {{"use_sliding_window", true}, {"sliding_window", 7}})).window,
            (std::vector<int>{0, 7, 0, 0, 7}));
  EXPECT_EQ(parse(with(listed, {{"use_sliding_window", true}})).window,
            (std::vector<int>{0, 0, 0, 0, 0}));
  expect_corrupt(with(smol, {{"no_rope_layers", {1, 0}}}), {"no_rope_layers: lists 2 layers of 5"});
  EXPECT_TRUE(parse(without(smol, "tie_word_embeddings")).tied_head);
}

TEST(ModelConfig, RefusesWhatNoFamilyHas) {
  expect_unsupported(with(llama(), {{"vision_config", json::object()}}),
                     {"dir/config.json: vision_config: a vision or audio tower"});
  expect_unsupported(with(llama(), {{"audio_config", {{"x", 1}}}}), {"audio_config: "});
  expect_unsupported(with(llama(), {{"per_layer_config", {{"0", json::object()}}}}),
                     {"per_layer_config: "});
  expect_unsupported(with(llama(), {{"compression_config", {{"quant_method", "x"}}}}),
                     {"compression_config: "});
}

TEST(ModelConfig, UnitesTheEosIdsOfBothFiles) {
  const auto eos = [](const json& config, const std::string& generation) {
    return parse(config, generation).eos_ids;
  };
  EXPECT_EQ(eos(llama(), R"({"eos_token_id": [7, 2, 5]})"), (std::vector<int32_t>{2, 5, 7}));
  EXPECT_EQ(eos(llama(), R"({"eos_token_id": 1})"), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(eos(llama(), R"({"eos_token_id": null})"), std::vector<int32_t>{2});
  EXPECT_EQ(eos(with(llama(), {{"eos_token_id", {9, 9}}}), "{}"), std::vector<int32_t>{9});
  EXPECT_TRUE(eos(with(llama(), {{"eos_token_id", nullptr}}), "").empty());
  expect_error(ErrorCode::kCorruptFile, {"dir/generation_config.json: eos_token_id: ", "got -1"},
               [&] { eos(llama(), R"({"eos_token_id": [-1]})"); });
  expect_error(ErrorCode::kCorruptFile, {"dir/generation_config.json: not valid JSON"},
               [&] { eos(llama(), "{"); });
  expect_corrupt(with(llama(), {{"eos_token_id", "2"}}), {"eos_token_id: must be an integer"});
}

TEST(ModelConfig, RefusesQuantizedCheckpointsByName) {
  expect_unsupported(with(llama(), {{"quantization_config", {{"quant_method", "awq"}}}}),
                     {"dir/config.json: quantization_config: ", "'awq'"});
  EXPECT_NO_THROW(parse(with(llama(), {{"quantization_config", nullptr}})));
}

TEST(ModelConfig, RefusesOtherActivationsAndRopesByName) {
  expect_unsupported(with(llama(), {{"hidden_act", "relu"}}),
                     {"dir/config.json: hidden_act: 'relu' is not supported"});
  expect_unsupported(with(llama(), {{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}}}}),
                     {"dir/config.json: rope_scaling.rope_type: 'longrope' is not supported"});
  expect_unsupported(
      with(llama(), {{"layer_types", {"sliding_attention", "full_attention", "full_attention"}}}),
      {"dir/config.json: layer_types: "});
}

TEST(ModelConfig, NamesTheSizeThatIsMissingOrImpossible) {
  const json bad = {0, -1, 2.5, true, "48", 1e30, 9223372036854775807, json::array({1})};
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads"}) {
    expect_corrupt(without(llama(), key),
                   {std::string("dir/config.json: ") + key + ": is missing"});
    expect_corrupt(with(llama(), {{key, nullptr}}), {std::string(key) + ": is missing"});
    for (const json& value : bad) {
      expect_corrupt(with(llama(), {{key, value}}),
                     {std::string("dir/config.json: ") + key + ": must be an integer from "});
    }
  }
  // One row is no matrix.
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size"}) {
    expect_corrupt(with(llama(), {{key, 1}}), {std::string(key) + ": must be an integer from 2"});
  }
  for (const char* key : {"num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const json& value : bad) {
      expect_corrupt(with(llama(), {{key, value}}), {std::string(key) + ": must be an integer"});
    }
  }
  for (const json& value : json{0, -1e-5, 2, true, "1e-5"}) {
    expect_corrupt(with(llama(), {{"rms_norm_eps", value}}), {"rms_norm_eps: must be a number"});
  }
  for (const char* key : {"attention_bias", "mlp_bias", "tie_word_embeddings"}) {
    expect_corrupt(with(llama(), {{key, 1}}), {std::string(key) + ": must be true or false"});
  }
}

TEST(ModelConfig, RefusesSizesThatContradictEachOther) {
  expect_corrupt(with(llama(), {{"num_key_value_heads", 3}}),
                 {"num_key_value_heads: 3 does not divide the 4 attention heads"});
  expect_corrupt(with(llama(), {{"head_dim", nullptr}, {"hidden_size", 50}}),
                 {"num_attention_heads: 4 does not divide hidden_size 50"});
  expect_corrupt(with(llama(), {{"head_dim", 13}}), {"head_dim: must be even", "got 13"});
  expect_corrupt(with(llama(), {{"head_dim", nullptr}, {"hidden_size", 52}}),
                 {"head_dim: must be even", "got 13"});
}

}  // namespace
}  // namespace llorch
