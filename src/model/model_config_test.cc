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
                     {std::string("dir/config.json: ") + key + ": must be an integer from 1 to "});
    }
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
