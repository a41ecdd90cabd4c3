#include "engine/kv_sizing.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

// The way from one context to a full batch, in steps that no product of sizes overflows with.
constexpr int64_t kScale = 1 << 20;

}  // namespace

uint64_t kv_pool_bytes(const KvSpec& spec, std::span<const int32_t> blocks) {
  uint64_t bytes = 0;
  for (size_t g = 0; g < blocks.size(); ++g) {
    bytes += Backend::block_bytes(spec, g) * static_cast<uint64_t>(blocks[g]);
  }
  return bytes;
}

std::vector<int32_t> kv_pool_sizes(const KvDemand& demand, uint64_t budget, uint64_t free_bytes) {
  const KvSpec& spec = demand.spec;
  const int64_t slots_end = INT32_MAX / spec.block_tokens;  // a slot is an int32_t
  std::vector<int64_t> least, most;
  for (size_t g = 0; g < spec.groups.size(); ++g) {
    least.push_back(demand.shape.needed(g, demand.context));
    most.push_back(std::max(least[g], std::min(least[g] * demand.max_batch, slots_end)));
  }
  const auto scaled = [&](int64_t scale) {
    std::vector<int32_t> blocks;
    for (size_t g = 0; g < least.size(); ++g) {
      blocks.push_back(static_cast<int32_t>(least[g] + (most[g] - least[g]) * scale / kScale));
    }
    return blocks;
  };
  const std::string what = "[engine] kv cache of " + std::to_string(demand.context) + " tokens";
  const uint64_t one_context = kv_pool_bytes(spec, scaled(0));
  if (one_context > budget) throw OutOfMemory(what, one_context, budget);
  int64_t fits = 0, too_much = kScale + 1;
  while (too_much - fits > 1) {
    const int64_t middle = (fits + too_much) / 2;
    (kv_pool_bytes(spec, scaled(middle)) <= budget ? fits : too_much) = middle;
  }
  std::vector<int32_t> blocks = scaled(fits);
  // What rounding left.
  for (size_t g = 0; g < blocks.size(); ++g) {
    const uint64_t left = (budget - kv_pool_bytes(spec, blocks)) / Backend::block_bytes(spec, g);
    blocks[g] +=
        static_cast<int32_t>(std::min(left, static_cast<uint64_t>(most[g] - int64_t{blocks[g]})));
  }
  const uint64_t bytes = kv_pool_bytes(spec, blocks);
  if (bytes > free_bytes) throw OutOfMemory(what, bytes, free_bytes);
  return blocks;
}

}  // namespace llorch
