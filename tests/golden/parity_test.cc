// The start-up gate on every golden and type: healthy models pass, far from their bounds, and a
// weight that is not the checkpoint's is named.
#include "model/parity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/stored_tensor.h"
#include "model/model.h"
#include "model/open_model.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "reference.h"

namespace llorch {
namespace {

constexpr int kBlockTokens = 16;

// A type of the weights, or none for those stored, what they are quantised to, and the cache's.
struct Types {
  std::optional<DType> weights, quantize;
  DType kv;
};
constexpr Types kTypes[] = {{DType::kF32, {}, DType::kF32},   {DType::kBF16, {}, DType::kBF16},
                            {DType::kF16, {}, DType::kF16},   {{}, {}, DType::kQ8_0},
                            {{}, DType::kQ8_0, DType::kQ8_0}, {{}, DType::kQ4_0, DType::kBF16},
                            {{}, DType::kQ4_K, DType::kF32}};

std::string described(const Types& types) {
  return "weights " + std::string(types.weights ? name(*types.weights) : "stored") +
         (types.quantize ? std::string(" to ") + name(*types.quantize) : "") + ", kv " +
         name(types.kv);
}

// A model ready for its first step, with weights of `loaded`; `checkpoint` is the true one.
struct Prepared {
  Prepared(const std::string& golden, const Types& types,
           const std::function<void(Checkpoint&)>& damage = {})
      : checkpoint(open_model(golden_folder(golden))),
        loaded(open_model(golden_folder(golden))),
        model(load(types, damage)) {
    options = {.layers = model.config().layers,
               .kv_type = types.kv,
               .block_tokens = kBlockTokens,
               .logit_rows = Probe::kRows};
    const KvSpec kv = model.kv_spec(kBlockTokens, types.kv);
    const std::vector<int32_t> one(kv.groups.size(), 1),
        rows = {0, 1, 2, 3, 4, 5, 6, 7}, slots(kv.groups.size() * rows.size(), -1),
        query_start = {0, 8}, kv_len = {8}, rope_len(rows.size(), 1);
    backend.create_kv(kv, one);
    backend.prepare(model.forward(), {.tokens = rows,
                                      .positions = rows,
                                      .slots = slots,
                                      .query_start = query_start,
                                      .kv_len = kv_len,
                                      .blocks = {},
                                      .logit_rows = rows,
                                      .rope_len = rope_len});
    backend.create_kv(kv, one);
  }

  Model load(const Types& types, const std::function<void(Checkpoint&)>& damage) {
    if (damage) damage(loaded);
    return Model::load(loaded, backend, {.dtype = types.weights, .quantize = types.quantize});
  }
  ParityReport check() { return check_parity(backend, model, checkpoint, options); }
  // What the gate says; nothing if it passes.
  std::string refusal() {
    try {
      check();
    } catch (const Error& error) {
      EXPECT_EQ(exit_status(error.code()), 11);
      return error.what();
    }
    return "";
  }

  Backend backend{BackendOptions{}};
  Checkpoint checkpoint, loaded;
  Model model;
  ParityOptions options;
};

// Puts other tensors in the place of a checkpoint's.
void describe(Checkpoint& checkpoint, const Checkpoint::Tensors& tensors) {
  checkpoint.describe({.config = checkpoint.config(),
                       .generation_config = checkpoint.generation_config(),
                       .tokenizer_config = checkpoint.tokenizer_config(),
                       .tensors = tensors});
}

// Doubles a number that is not 0, an f16 or bf16 or f32 at `at`.
void double_at(DType type, std::byte* at) {
  uint32_t bits = 0;
  const size_t size = size_bytes(type);
  std::memcpy(&bits, at, size);
  bits += type == DType::kF16 ? 1u << 10 : type == DType::kBF16 ? 1u << 7 : 1u << 23;
  std::memcpy(at, &bits, size);
}

// A tensor's bytes, the largest of its numbers (of its blocks' scales) doubled, or all of them.
std::vector<std::byte> damaged(const StoredTensor& tensor, bool all) {
  std::vector<std::byte> bytes(tensor.bytes.begin(), tensor.bytes.end());
  const bool blocks = tensor.blocks != nullptr && tensor.blocks->block_values > 1;
  const DType type = blocks ? DType::kF16 : *tensor.type;
  const size_t step = blocks ? static_cast<size_t>(tensor.blocks->block_bytes) : size_bytes(type);
  const size_t offset = blocks && std::string(tensor.blocks->name) == "Q6_K" ? 208 : 0;
  size_t largest = offset;
  float most = -1;
  for (size_t at = offset; at < bytes.size(); at += step) {
    const float value = std::abs(to_f32(std::span(bytes).subspan(at), type, 1)[0]);
    if (all && value > 0) double_at(type, &bytes[at]);
    if (value > most) {
      most = value;
      largest = at;
    }
  }
  if (!all) double_at(type, &bytes[largest]);
  return bytes;
}

class Parity : public ::testing::TestWithParam<std::string> {};

TEST_P(Parity, PassesWhatIsHealthy) {
  ParityReport most;  // in parts of the bounds
  for (const Types& types : kTypes) {
    SCOPED_TRACE(described(types));
    Prepared worker(GetParam(), types);
    ParityReport report;
    ASSERT_NO_THROW(report = worker.check());
    EXPECT_EQ(report.layers, worker.model.config().layers);
    if (report.worst > most.worst) {
      most.worst = report.worst;
      most.worst_at = described(types) + ": " + report.worst_at;
    }
    most.step = std::max(most.step, report.step);
  }
  RecordProperty("worst", std::to_string(most.worst) + " " + most.worst_at);
  RecordProperty("step", std::to_string(most.step));
  EXPECT_LE(most.worst, 0.25) << most.worst_at;
  EXPECT_LE(most.step, 0.5);
}

// One scale of one tensor is not the checkpoint's: each tensor in turn of the last layer, and those
// that are of none.
TEST_P(Parity, NamesTheTensorOfWhichOneScaleIsWrong) {
  const Types types{{}, {}, DType::kF32};
  const Prepared healthy(GetParam(), types);
  const std::string last = std::to_string(healthy.model.config().layers - 1);
  for (const auto& [key, tensor] : healthy.checkpoint.tensors()) {
    const size_t dot = key.find("layers.");
    const bool in_a_layer = dot != std::string::npos;
    if (in_a_layer && !key.substr(dot).starts_with("layers." + last + ".")) continue;
    // Few rows of a table are asked for; what all keys have more of changes nothing without a rope.
    const bool all = key.find("embed_tokens") != std::string::npos ||
                     key.find("k_layernorm.bias") != std::string::npos;
    const auto bytes = damaged(tensor, all);
    Prepared worker(GetParam(), types, [&, name = key](Checkpoint& checkpoint) {
      auto tensors = checkpoint.tensors();
      tensors.at(name).bytes = bytes;
      describe(checkpoint, tensors);
    });
    const std::string refusal = worker.refusal();
    EXPECT_NE(refusal.find(tensor.name), std::string::npos) << key << ": " << refusal;
    if (in_a_layer) {
      EXPECT_NE(refusal.find("layer " + last + ": "), std::string::npos) << key << ": " << refusal;
    }
  }
}

// A model whose second layer writes its keys and values where the first one has its own: in a step
// alone each finds what it wrote, in the next one the first does not.
TEST(ParityOfSteps, NamesTheLayerWhereEachOpIsRight) {
  Prepared worker("llama_tied", {DType::kF32, {}, DType::kF32});
  auto& kv = const_cast<ModelConfig&>(worker.model.config()).kv;
  ASSERT_EQ(kv.groups.size(), 1u);
  kv.of_layer[1] = kv.of_layer[0];
  const std::string refusal = worker.refusal();
  EXPECT_NE(refusal.find("[parity] layer 1: each op is right"), std::string::npos) << refusal;
}

TEST(ParityOfSteps, RefusesWhatIsNotFinite) {
  const auto overflow = [](Checkpoint& checkpoint) {
    static std::vector<float> huge;
    auto tensors = checkpoint.tensors();
    StoredTensor& tensor = tensors.at("model.layers.0.mlp.up_proj.weight");
    huge.assign(tensor.bytes.size() / sizeof(float), 3e38f);
    ASSERT_EQ(tensor.type, DType::kF32);
    tensor.bytes = std::as_bytes(std::span(huge));
    describe(checkpoint, tensors);
  };
  Prepared worker("llama_tied", {DType::kF32, {}, DType::kF32}, overflow);
  const std::string refusal = worker.refusal();
  EXPECT_NE(refusal.find("layer 0: product with model.layers.0.mlp.gate_proj.weight+"
                         "model.layers.0.mlp.up_proj.weight: the device's result is nan from"),
            std::string::npos)
      << refusal;
}

// Of one row of logits at a time, where a step has no more.
TEST(ParityOfSteps, AsksForNoMoreLogitsThanThereAre) {
  Prepared worker("qwen2_window", {DType::kBF16, {}, DType::kBF16});
  worker.options.logit_rows = 1;
  worker.options.layers = 1;
  EXPECT_EQ(worker.check().layers, 1);
}

INSTANTIATE_TEST_SUITE_P(Families, Parity, ::testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace llorch
