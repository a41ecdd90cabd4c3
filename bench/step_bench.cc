// Times steps of a random 1B-like decoder on the linked backend, through its public interface.
// usage: step_bench [layers] [threads] [prompt tokens] [context] [f32|bf16|q8_0|...] [window]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

constexpr int kHidden = 2048, kFfn = 5632, kHeads = 32, kKvHeads = 4, kHeadDim = 64, kVocab = 32000;
constexpr int kBlockTokens = 16, kRepeats = 5;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Layer {
  Weight norm, qkv, out, mlp_norm, gate_up, down;
};

class Net {
 public:
  Net(Backend& backend, int layers, DType type, int window)
      : backend_(backend), type_(type), window_(window) {
    table_ = weight(kVocab, kHidden);
    for (int i = 0; i < layers; ++i) {
      layers_.push_back({weight(1, kHidden), weight((kHeads + 2 * kKvHeads) * kHeadDim, kHidden),
                         weight(kHidden, kHeads * kHeadDim), weight(1, kHidden),
                         weight(2 * kFfn, kHidden), weight(kHidden, kFfn)});
    }
    rope_.dims = kHeadDim;
    for (int i = 0; i < kHeadDim / 2; ++i) rope_.inv_freq.push_back(1 / static_cast<float>(1 + i));
  }

  Forward forward() const {
    return [this](Ops& op) {
      Tensor sum = op.embed(table_), x = op.norm(sum, norm(layers_[0].norm));
      for (size_t i = 0; i < layers_.size(); ++i) {
        const Layer& l = layers_[i];
        const Attention spec{.layer = static_cast<int>(i),
                             .heads = kHeads,
                             .kv_heads = kKvHeads,
                             .head_dim = kHeadDim,
                             .window = window_,
                             .scale = 0.125f,
                             .rope = &rope_};
        x = op.linear(op.attention(op.linear(x, l.qkv), spec), l.out);
        x = op.add_norm(x, &sum, norm(l.mlp_norm));
        x = op.add_norm(op.mlp(x, l.gate_up, l.down, Act::kSilu), &sum, norm(l.norm));
      }
      return op.logits(x, table_);
    };
  }

 private:
  static Norm norm(const Weight& gain) { return {NormKind::kRms, 1e-5f, &gain}; }

  Weight weight(int rows, int cols) {
    const auto count = static_cast<size_t>(rows) * static_cast<size_t>(cols);
    TestNumbers numbers(static_cast<uint32_t>(count));
    if (is_quantised(type_) && rows > 1) return quantised_weight(rows, cols, &numbers);
    const DType type = is_quantised(type_) ? DType::kF32 : type_;
    std::vector<std::byte> bytes(count * size_bytes(type));
    for (size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(numbers.unit() * 0.04 - 0.02);
      const uint16_t half = type == DType::kF16 ? f16_from_f32(value) : bf16_from_f32(value);
      if (type == DType::kF32) {
        std::memcpy(&bytes[i * 4], &value, 4);
      } else {
        std::memcpy(&bytes[i * 2], &half, 2);
      }
    }
    const RawTensor raw{"w", type, {rows, cols}, bytes};
    return backend_.pack({&raw, 1}, type);
  }

  // Random bits, but for the f16 scales.
  Weight quantised_weight(int rows, int cols, TestNumbers* numbers) {
    std::vector<std::byte> bytes(static_cast<size_t>(rows) * row_bytes(type_, cols));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(numbers->bits() >> 11);
    const uint16_t scale = f16_from_f32(1e-4f);
    const auto block = static_cast<size_t>(block_layout(type_).bytes);
    for (size_t at = 0; at < bytes.size(); at += block) {
      std::memcpy(&bytes[at + (type_ == DType::kQ6_K ? block - 2 : 0)], &scale, sizeof scale);
      if (block == 144 || block == 176) std::memcpy(&bytes[at + 2], &scale, sizeof scale);
    }
    const RawTensor raw{"w", type_, {rows, cols}, bytes};
    return backend_.pack({&raw, 1}, DType::kF32);
  }

  Backend& backend_;
  DType type_;
  int window_;  // 0 = none
  Weight table_;
  std::vector<Layer> layers_;
  Rope rope_;
};

// `sequences` rows of one token each after `context` tokens, or one sequence of `rows` rows.
double time_step(Backend& backend, const Net& net, int sequences, int rows, int context) {
  std::vector<int32_t> tokens, positions, slots, start = {0}, lengths, blocks, wanted;
  const int width = (context + rows) / kBlockTokens + 1;
  for (int s = 0; s < sequences; ++s) {
    for (int i = 0; i < width; ++i) blocks.push_back(s * width + i);
    for (int i = 0; i < rows; ++i) {
      const int position = context + i;
      tokens.push_back(position % kVocab);
      positions.push_back(position);
      slots.push_back((s * width + position / kBlockTokens) * kBlockTokens +
                      position % kBlockTokens);
    }
    start.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(context + rows);
    wanted.push_back(start.back() - 1);
  }
  const Batch batch{tokens, positions, slots, start, lengths, blocks, wanted, width};
  const std::vector<Sampling> sampling(wanted.size(), {.temperature = 0});
  double best = 1e9;
  for (int i = 0; i < kRepeats; ++i) {
    const double begin = seconds();
    backend.submit(net.forward(), batch, sampling);
    backend.collect();
    best = std::min(best, seconds() - begin);
  }
  return best;
}

void prepare(Backend& backend, const Net& net, int layers, int rows, int context) {
  const KvSpec kv{.groups = {{.layers = layers}},
                  .kv_heads = kKvHeads,
                  .head_dim = kHeadDim,
                  .block_tokens = kBlockTokens,
                  .type = DType::kF32};
  std::vector<int32_t> zeros(static_cast<size_t>(rows)), slots(zeros.size(), -1), wanted(32);
  std::iota(wanted.begin(), wanted.end(), 0);
  const std::vector<int32_t> start = {0, rows}, lengths = {1}, blocks = {0};
  const int32_t one[] = {1}, all[] = {16 * ((context + rows) / kBlockTokens + 2)};
  backend.create_kv(kv, one);
  backend.prepare(net.forward(), {zeros, zeros, slots, start, lengths, blocks, wanted, 1});
  backend.create_kv(kv, all);
}

int run(int argc, char** argv) {
  const auto number = [&](int i, int otherwise) {
    return argc > i ? std::max(1, std::atoi(argv[i])) : otherwise;
  };
  const int layers = number(1, 4), threads = number(2, 2), prompt = std::max(32, number(3, 512)),
            context = number(4, 512);
  const std::string wanted = argc > 5 ? argv[5] : "bf16";
  DType type = DType::kBF16;
  for (int i = 0; i <= static_cast<int>(DType::kIQ4_NL); ++i) {
    if (name(static_cast<DType>(i)) == wanted) type = static_cast<DType>(i);
  }
  Backend backend({.threads = threads});
  const Net net(backend, layers, type, argc > 6 ? std::atoi(argv[6]) : 0);
  prepare(backend, net, layers, prompt, context);
  const auto bytes = static_cast<double>(backend.weight_bytes());
  std::printf("%s, %d layers, %.2f GB of %s\n", backend.device().name.c_str(), layers, bytes / 1e9,
              name(type));
  for (const int sequences : {1, 2, 4, 8, 16}) {
    const double time = time_step(backend, net, sequences, 1, context);
    std::printf("decode %2d x 1 at %d: %7.2f ms, %6.1f tok/s, %5.1f GB/s of weights\n", sequences,
                context, time * 1e3, sequences / time, bytes / time / 1e9);
  }
  for (const int rows : {16, prompt}) {
    const double time = time_step(backend, net, 1, rows, context);
    std::printf("prefill %d at %d: %7.1f ms, %6.1f tok/s\n", rows, context, time * 1e3,
                rows / time);
  }
  const double time = time_step(backend, net, 1, prompt, 0);
  const double weights =
      bytes / static_cast<double>(block_layout(type).bytes) * block_layout(type).values -
      double{kVocab} * kHidden;
  std::printf("prefill %d: %7.1f ms, %6.1f tok/s, %5.1f GFLOP/s in matrices\n", prompt, time * 1e3,
              prompt / time, 2 * weights * prompt / time / 1e9);
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  try {
    return llorch::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
