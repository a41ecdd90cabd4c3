// Loading through Checkpoint and Model on the fake backend; what the numbers come to is for the
// golden tests.
#include "model/model.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::safetensors;
using testing::TempFolder;
using testing::TestTensor;

std::string elements(const std::string& dtype, size_t count) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const float value = 0.25f + static_cast<float>(i % 5);
    char raw[4];
    std::memcpy(raw, &value, 4);
    // The upper half of an f32 is a bf16, and these patterns are finite as f16 too.
    bytes.append(dtype == "F32" ? raw : raw + 2, dtype == "F32" ? 4 : 2);
  }
  return bytes;
}

TestTensor tensor(const std::string& name, const std::string& dtype,
                  const std::vector<int64_t>& dims) {
  size_t count = 1;
  for (const int64_t dim : dims) {
    count *= static_cast<size_t>(dim);
  }
  return {name, dtype, dims, elements(dtype, count)};
}

// Hidden 8, 2 heads of 6, 1 kv head, ffn 10, vocabulary 12, 2 layers.
std::vector<TestTensor> tensors(const std::string& dtype = "F32") {
  std::vector<TestTensor> all = {tensor("model.embed_tokens.weight", dtype, {12, 8}),
                                 tensor("model.norm.weight", dtype, {8}),
                                 tensor("lm_head.weight", dtype, {12, 8})};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    all.push_back(tensor(layer + "input_layernorm.weight", dtype, {8}));
    all.push_back(tensor(layer + "self_attn.q_proj.weight", dtype, {12, 8}));
    all.push_back(tensor(layer + "self_attn.k_proj.weight", dtype, {6, 8}));
    all.push_back(tensor(layer + "self_attn.v_proj.weight", dtype, {6, 8}));
    all.push_back(tensor(layer + "self_attn.o_proj.weight", dtype, {8, 12}));
    all.push_back(tensor(layer + "post_attention_layernorm.weight", dtype, {8}));
    all.push_back(tensor(layer + "mlp.gate_proj.weight", dtype, {10, 8}));
    all.push_back(tensor(layer + "mlp.up_proj.weight", dtype, {10, 8}));
    all.push_back(tensor(layer + "mlp.down_proj.weight", dtype, {8, 10}));
  }
  return all;
}

std::string config(const std::string& more = "") {
  return R"({"model_type":"llama","vocab_size":12,"hidden_size":8,"intermediate_size":10,)"
         R"("num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":6)" +
         more + "}";
}

struct ModelFolder : TempFolder {
  explicit ModelFolder(const std::vector<TestTensor>& all = tensors(),
                       const std::string& config_text = config()) {
    write("config.json", config_text);
    write("tokenizer.json", "{}");
    write("model.safetensors", safetensors(all));
  }
  Model load(const LoadOptions& options = {}) const {
    return Model::load(Checkpoint::open(path()), backend, options);
  }
  void expect(ErrorCode code, const std::vector<std::string>& parts,
              const LoadOptions& options = {}) const {
    expect_error(code, parts, [&] { load(options); });
  }
  mutable Backend backend{BackendOptions{}};
};

// tensors(), after `change` to the one called `name`.
std::vector<TestTensor> changed(const std::string& name,
                                const std::function<void(TestTensor&)>& change) {
  auto all = tensors();
  for (TestTensor& t : all) {
    if (t.name == name) {
      change(t);
    }
  }
  return all;
}

TEST(Model, LoadsAndTellsWhatItIs) {
  const ModelFolder folder;
  const Model model = folder.load();
  EXPECT_EQ(model.config().architecture, "llama");
  EXPECT_EQ(model.dtype(), DType::kF32);
  const KvSpec spec = model.kv_spec(16, DType::kBF16);
  ASSERT_EQ(spec.groups.size(), 1u);
  EXPECT_EQ(spec.groups[0].layers, 2);
  EXPECT_EQ(spec.groups[0].window, 0);
  EXPECT_EQ(spec.kv_heads, 1);
  EXPECT_EQ(spec.head_dim, 6);
  EXPECT_EQ(spec.block_tokens, 16);
  EXPECT_EQ(spec.type, DType::kBF16);
  // 2 x 12 x 8 + 2 x (24 x 8 + 8 x 12 + 20 x 8 + 8 x 10) matrix elements and 5 vectors of 8.
  EXPECT_EQ(folder.backend.weight_bytes(), 4u * (192 + 2 * (192 + 96 + 160 + 80) + 40));
}

TEST(Model, TakesTheCheckpointsDtypeUnlessToldOtherwise) {
  const ModelFolder folder(tensors("BF16"));
  EXPECT_EQ(folder.load().dtype(), DType::kBF16);
  EXPECT_EQ(folder.load({.dtype = DType::kF32}).dtype(), DType::kF32);
  EXPECT_EQ(ModelFolder(tensors("F16")).load().dtype(), DType::kF16);
}

TEST(Model, RunsItsStepThroughTheBackend) {
  const ModelFolder folder;
  const Model model = folder.load();
  const int32_t one_block[] = {1};
  folder.backend.create_kv(model.kv_spec(4, DType::kF32), one_block);
  const std::vector<int32_t> tokens = {1, 2, 3}, positions = {0, 1, 2}, slots = {0, 1, 2};
  const std::vector<int32_t> query_start = {0, 3}, kv_len = {3}, blocks = {0}, rows = {2};
  const std::vector<Sampling> sampling(1);
  folder.backend.submit(model.forward(),
                        {tokens, positions, slots, query_start, kv_len, blocks, rows, 1}, sampling);
  EXPECT_EQ(folder.backend.collect().size(), 1u);
}

TEST(Model, ReportsProgressOnceForEachPercentage) {
  std::vector<int> seen;
  const ModelFolder folder;
  folder.load({.dtype = {}, .progress = [&](int percent) { seen.push_back(percent); }});
  ASSERT_GT(seen.size(), 5u);
  EXPECT_EQ(seen.front(), 0);
  EXPECT_EQ(seen.back(), 100);
  for (size_t i = 1; i < seen.size(); ++i) {
    EXPECT_LT(seen[i - 1], seen[i]);
  }
}

TEST(Model, TiesTheHeadUnlessTheCheckpointHasAnother) {
  const std::string tied = config(R"(,"tie_word_embeddings":true)");
  const uint64_t untied_bytes = [] {
    const ModelFolder folder;
    folder.load();
    return folder.backend.weight_bytes();
  }();
  const auto bytes_of = [&](const std::vector<TestTensor>& all) {
    const ModelFolder folder(all, tied);
    folder.load();
    return folder.backend.weight_bytes();
  };
  EXPECT_EQ(bytes_of(tensors()), untied_bytes - 4 * 12 * 8);  // the same bytes twice
  EXPECT_EQ(bytes_of(changed("lm_head.weight", [](TestTensor& t) { t.name = "other"; })),
            untied_bytes - 4 * 12 * 8);
  EXPECT_EQ(bytes_of(changed("lm_head.weight", [](TestTensor& t) { t.bytes.front() = 1; })),
            untied_bytes);
}

TEST(Model, NamesEveryMissingTensor) {
  for (const TestTensor& one : tensors()) {
    ModelFolder folder(changed(one.name, [](TestTensor& t) { t.name = "elsewhere"; }));
    folder.expect(ErrorCode::kCorruptFile,
                  {folder.file("model.safetensors") + ": " + one.name + ": is missing"});
  }
}

TEST(Model, NamesEveryTensorOfAWrongShape) {
  for (const TestTensor& one : tensors()) {
    ModelFolder folder(changed(one.name, [](TestTensor& t) { t.dims.push_back(1); }));
    folder.expect(ErrorCode::kCorruptFile, {folder.file("model.safetensors") + ": " + one.name,
                                            ": wrong shape; got [", "1], want ["});
  }
  ModelFolder folder(changed("model.layers.1.self_attn.k_proj.weight", [](TestTensor& t) {
    t.dims = {8, 6};
  }));
  folder.expect(ErrorCode::kCorruptFile, {"k_proj.weight: wrong shape; got [8, 6], want [6, 8]"});
}

TEST(Model, RefusesAWantedDtypeItCannotComputeWith) {
  const ModelFolder folder(changed("model.layers.1.mlp.up_proj.weight", [](TestTensor& t) {
    t.dtype = "F8_E4M3";
    t.bytes.resize(80);
  }));
  folder.expect(ErrorCode::kUnsupported,
                {folder.file("model.safetensors") + ": model.layers.1.mlp.up_proj.weight: dtype "
                                                    "F8_E4M3 is not supported"});
}

TEST(Model, IgnoresTensorsThatNobodyAsksFor) {
  auto all = tensors();
  all.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "\xff\xff\xff\xff"});
  all.push_back({"quantizer.state", "I64", {1}, std::string(8, '\0')});
  all.push_back({"something.new", "F2_FUTURE", {9}, "abc"});
  EXPECT_NO_THROW(ModelFolder(all).load());
}

TEST(Model, NamesTheTensorThatHoldsANan) {
  for (const TestTensor& one : tensors()) {
    const ModelFolder folder(changed(one.name, [](TestTensor& t) {
      const float nan = NAN;
      std::memcpy(t.bytes.data() + 12, &nan, 4);
    }));
    folder.expect(ErrorCode::kCorruptFile, {folder.file("model.safetensors") + ": " + one.name +
                                            ": element 3 is not a finite f32"});
  }
}

TEST(Model, RefusesValuesThatF16CannotHold) {
  const ModelFolder folder(changed("lm_head.weight", [](TestTensor& t) {
    const float large = 70000;
    std::memcpy(t.bytes.data(), &large, 4);
  }));
  EXPECT_NO_THROW(folder.load());
  EXPECT_NO_THROW(folder.load({.dtype = DType::kBF16}));
  folder.expect(ErrorCode::kCorruptFile, {"lm_head.weight: element 0 is not a finite f16"},
                {.dtype = DType::kF16});
}

TEST(Model, WantsTheBiasesThatConfigAnnouncesAndNoOthers) {
  const std::string announced = config(R"(,"attention_bias":true,"mlp_bias":true)");
  const auto biases = [] {
    auto all = tensors();
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      all.push_back(tensor(layer + "self_attn.q_proj.bias", "F32", {12}));
      all.push_back(tensor(layer + "self_attn.k_proj.bias", "F32", {6}));
      all.push_back(tensor(layer + "self_attn.v_proj.bias", "F32", {6}));
      all.push_back(tensor(layer + "self_attn.o_proj.bias", "F32", {8}));
      all.push_back(tensor(layer + "mlp.gate_proj.bias", "F32", {10}));
      all.push_back(tensor(layer + "mlp.up_proj.bias", "F32", {10}));
      all.push_back(tensor(layer + "mlp.down_proj.bias", "F32", {8}));
    }
    return all;
  }();
  EXPECT_NO_THROW(ModelFolder(biases, announced).load());
  for (size_t i = tensors().size(); i < biases.size(); ++i) {
    auto fewer = biases;
    fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(i));
    ModelFolder(fewer, announced)
        .expect(ErrorCode::kCorruptFile, {": " + biases[i].name + ": is missing"});
    auto one = tensors();
    one.push_back(biases[i]);
    ModelFolder(one).expect(
        ErrorCode::kCorruptFile,
        {"model.safetensors: " + biases[i].name, ": a bias that config.json does not announce"});
  }
}

std::string mixtral_config() {
  return R"({"model_type":"mixtral","vocab_size":12,"hidden_size":8,"intermediate_size":10,)"
         R"("num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":6,)"
         R"("num_local_experts":3})";
}

// tensors() with three experts in place of each MLP, called as published or stacked.
std::vector<TestTensor> mixtral_tensors(bool stacked) {
  auto all = tensors();
  std::erase_if(all, [](const TestTensor& t) { return t.name.find(".mlp.") != std::string::npos; });
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    if (stacked) {
      all.push_back(tensor(layer + "mlp.gate.weight", "F32", {3, 8}));
      all.push_back(tensor(layer + "mlp.experts.gate_up_proj", "F32", {3, 20, 8}));
      all.push_back(tensor(layer + "mlp.experts.down_proj", "F32", {3, 8, 10}));
      continue;
    }
    all.push_back(tensor(layer + "block_sparse_moe.gate.weight", "F32", {3, 8}));
    for (const std::string expert : {"0.", "1.", "2."}) {
      const std::string name = layer + "block_sparse_moe.experts." + expert;
      all.push_back(tensor(name + "w1.weight", "F32", {10, 8}));
      all.push_back(tensor(name + "w2.weight", "F32", {8, 10}));
      all.push_back(tensor(name + "w3.weight", "F32", {10, 8}));
    }
  }
  return all;
}

TEST(Model, NamesEveryTensorOfAMixtureThatIsNotThere) {
  for (const bool stacked : {false, true}) {
    const auto all = mixtral_tensors(stacked);
    EXPECT_NO_THROW(ModelFolder(all, mixtral_config()).load());
    for (size_t i = tensors().size() - 6; i < all.size(); ++i) {
      auto changed = all;
      changed[i].dims.push_back(1);
      ModelFolder(changed, mixtral_config())
          .expect(ErrorCode::kCorruptFile, {all[i].name, ": wrong shape; got ["});
    }
  }
  auto fewer = mixtral_tensors(false);
  fewer.pop_back();
  ModelFolder(fewer, mixtral_config())
      .expect(ErrorCode::kCorruptFile, {"block_sparse_moe.experts.2.w3.weight: is missing"});
}

TEST(Model, FindsTensorsOfACheckpointWithoutAHead) {
  auto all = tensors();
  for (TestTensor& t : all) {
    if (t.name.starts_with("model.")) t.name.erase(0, 6);
  }
  EXPECT_NO_THROW(ModelFolder(all).load());
  std::erase_if(all, [](const TestTensor& t) { return t.name == "lm_head.weight"; });
  EXPECT_NO_THROW(ModelFolder(all, config(R"(,"tie_word_embeddings":true)")).load());
  ModelFolder(all).expect(ErrorCode::kCorruptFile, {"lm_head.weight: is missing"});
}

TEST(Model, LooksForEveryLayerBeforeItPacksTheFirst) {
  const ModelFolder folder(changed("model.norm.weight", [](TestTensor& t) { t.name = "gone"; }));
  folder.expect(ErrorCode::kCorruptFile, {"model.norm.weight: is missing"});
  EXPECT_EQ(folder.backend.weight_bytes(), 0u);
}

}  // namespace
}  // namespace llorch
