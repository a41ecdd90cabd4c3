#include "engine/setup.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "engine/kv_sizing.h"

namespace llorch {

EngineOptions checked_options(EngineOptions options, const ModelConfig& model) {
  const auto at_least = [](const char* what, int value, int least) {
    if (value >= least) return;
    throw Error(ErrorCode::kBadArgument, std::string("[engine] ") + what + "; got " +
                                             std::to_string(value) + ", want at least " +
                                             std::to_string(least));
  };
  at_least("context", options.context, 2);
  at_least("max_batch", options.max_batch, 1);
  at_least("max_queue", options.max_queue, 0);
  at_least("block_tokens", options.block_tokens, 1);
  at_least("steps_in_flight", options.steps_in_flight, 1);
  options.step_tokens = std::max(options.step_tokens, options.max_batch);
  std::vector<int32_t>& eos = options.eos_ids;
  eos.insert(eos.end(), model.eos_ids.begin(), model.eos_ids.end());
  std::sort(eos.begin(), eos.end());
  eos.erase(std::unique(eos.begin(), eos.end()), eos.end());
  return options;
}

int32_t draft_rows(const EngineOptions& options) {
  constexpr int32_t kMost = 32;  // of each the logits are kept
  if (!options.speculate) return 0;
  return std::min(kMost, (options.step_tokens - options.max_batch) / 2);
}

RopeLengths rope_lengths(const Model& model) {
  return {model.recompute_above(), model.stretched_above()};
}

BatchLimits batch_limits(const EngineOptions& options, const Model& model, size_t kv_groups) {
  return {.step_tokens = options.step_tokens,
          .max_batch = options.max_batch,
          .draft_rows = draft_rows(options),
          .context = options.context,
          .block_tokens = options.block_tokens,
          .kv_groups = kv_groups,
          .rope = rope_lengths(model)};
}

std::vector<int32_t> take_memory(Backend& backend, const Model& model, const EngineOptions& options,
                                 const KvSpec& spec, const KvShape& shape, BatchBuilder& builder) {
  backend.create_kv(spec, std::vector<int32_t>(spec.groups.size(), 1));
  backend.prepare(model.forward(), builder.largest());
  const uint64_t free_bytes = options.free_bytes.value_or(backend.device().free_bytes);
  const uint64_t budget = options.kv_bytes.value_or(
      free_bytes / 100 * static_cast<uint64_t>(std::max(options.kv_percent, 0)));
  std::vector<int32_t> blocks = kv_pool_sizes(
      {.spec = spec, .shape = shape, .context = options.context, .max_batch = options.max_batch},
      budget, free_bytes);
  backend.create_kv(spec, blocks);
  return blocks;
}

}  // namespace llorch
