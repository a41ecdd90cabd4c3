#include "engine/test_model.h"

#include "base/error.h"

namespace llorch {
namespace {

constexpr char kConfig[] = R"({
  "vocab_size": 44, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1,
  "num_key_value_heads": 1, "head_dim": 8, "hidden_act": "silu", "rms_norm_eps": 1e-5,
  "tie_word_embeddings": false, "eos_token_id": 32, "max_position_embeddings": )";

std::string config_json(int context, TestKind kind) {
  const std::string window = std::to_string(kTestWindow);
  std::string own;
  switch (kind) {
    case TestKind::kPlain:
      own = R"("model_type": "llama", "num_hidden_layers": 1)";
      break;
    case TestKind::kWindow:
      own = R"("model_type": "mistral", "num_hidden_layers": 1, "sliding_window": )" + window;
      break;
    case TestKind::kAlternating:
      own = R"("model_type": "qwen2", "num_hidden_layers": 3, "use_sliding_window": true,
               "max_window_layers": 1, "sliding_window": )" +
            window;
      break;
    case TestKind::kLongrope:
      own = R"("model_type": "phi3", "num_hidden_layers": 1, "sliding_window": )" + window +
            R"(, "original_max_position_embeddings": )" + std::to_string(kTestTrained) +
            R"(, "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1],
                                  "long_factor": [2, 3, 4, 5]})";
      break;
    case TestKind::kDynamic:
      own = R"("model_type": "llama", "num_hidden_layers": 1,
               "rope_scaling": {"type": "dynamic", "factor": )" +
            std::to_string((context + kTestTrained - 1) / kTestTrained) + "}";
      context = kTestTrained;
      break;
  }
  return kConfig + std::to_string(context) + ", " + own + "}";
}

// Byte-level names: printable bytes stand for themselves, 20 is Ġ, 82 is Ĥ.
std::vector<std::string> vocabulary() {
  std::vector<std::string> names;
  for (char c = 'a'; c <= 'z'; ++c) names.emplace_back(1, c);
  for (const char* name : {"Ġ", ".", "â", "Ĥ", "¬", "!", "</s>"}) names.emplace_back(name);
  for (char c = '0'; c <= '9'; ++c) names.emplace_back(1, c);
  names.emplace_back("Ã");
  return names;
}

std::string tokenizer_json() {
  std::string vocab;
  const std::vector<std::string> names = vocabulary();
  for (size_t id = 0; id < names.size(); ++id) {
    vocab += (id == 0 ? "\"" : ",\"") + names[id] + "\":" + std::to_string(id);
  }
  return R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
    {"id": 32, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true}],
  "normalizer": null, "post_processor": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": false},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
              "use_regex": false},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "merges": [], "vocab": {)" +
         vocab + "}}}";
}

testing::TestTensor zeros(const std::string& name, std::vector<int64_t> dims) {
  size_t bytes = sizeof(float);
  for (const int64_t dim : dims) bytes *= static_cast<size_t>(dim);
  return {name, "F32", std::move(dims), std::string(bytes, '\0')};
}

void add_layer(int index, TestKind kind, std::vector<testing::TestTensor>* all) {
  const std::string layer = "model.layers." + std::to_string(index) + ".";
  const auto add = [&](const char* name, std::vector<int64_t> dims) {
    all->push_back(zeros(layer + name, std::move(dims)));
  };
  add("input_layernorm.weight", {8});
  add("post_attention_layernorm.weight", {8});
  add("self_attn.o_proj.weight", {8, 8});
  add("mlp.down_proj.weight", {8, 8});
  if (kind == TestKind::kLongrope) {
    add("self_attn.qkv_proj.weight", {24, 8});
    add("mlp.gate_up_proj.weight", {16, 8});
    return;
  }
  for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}) {
    add((std::string(part) + ".weight").c_str(), {8, 8});
    if (kind == TestKind::kAlternating) add((std::string(part) + ".bias").c_str(), {8});
  }
  add("mlp.gate_proj.weight", {8, 8});
  add("mlp.up_proj.weight", {8, 8});
}

std::vector<testing::TestTensor> tensors(TestKind kind) {
  std::vector<testing::TestTensor> all = {
      zeros("model.embed_tokens.weight", {kTestVocab, 8}),
      zeros("lm_head.weight", {kTestVocab, 8}),
      zeros("model.norm.weight", {8}),
  };
  const int layers = kind == TestKind::kAlternating ? 3 : 1;
  for (int i = 0; i < layers; ++i) add_layer(i, kind, &all);
  return all;
}

const testing::TempFolder& written(const testing::TempFolder& folder, int context, TestKind kind) {
  write_test_model(folder, context, kind);
  return folder;
}

}  // namespace

void write_test_model(const testing::TempFolder& folder, int context, TestKind kind) {
  folder.write("config.json", config_json(context, kind));
  folder.write("tokenizer.json", tokenizer_json());
  folder.write("model.safetensors", testing::safetensors(tensors(kind)));
}

TestModel::TestModel(int context, TestKind kind)
    : backend(BackendOptions{}),
      checkpoint(Checkpoint::open(written(folder_, context, kind).path())),
      tokenizer(Tokenizer::from_json(checkpoint.tokenizer(), "tokenizer.json")),
      model(Model::load(checkpoint, backend, {})) {}

std::vector<int32_t> test_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) {
    if (c >= 'a' && c <= 'z') {
      ids.push_back(c - 'a');
    } else if (c >= '0' && c <= '9') {
      ids.push_back(33 + c - '0');
    } else {
      CHECK(c == ' ' || c == '.' || c == '!');
      ids.push_back(c == ' ' ? 26 : c == '.' ? 27 : 31);
    }
  }
  return ids;
}

}  // namespace llorch
