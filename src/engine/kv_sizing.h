// How many kv blocks each group gets from one memory budget.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_blocks.h"
#include "ops/backend.h"

namespace llorch {

struct KvDemand {
  const KvSpec& spec;
  const KvShape& shape;
  int32_t context = 0;    // tokens of a sequence
  int32_t max_batch = 0;  // sequences
};

// [G]. What a full batch of full contexts can use, or, where `budget` is short of that, as much of
// it for all groups alike. Throws OutOfMemory if not one full context fits the budget, or if the
// blocks are more than what is free.
std::vector<int32_t> kv_pool_sizes(const KvDemand& demand, uint64_t budget, uint64_t free_bytes);

uint64_t kv_pool_bytes(const KvSpec& spec, std::span<const int32_t> blocks);

}  // namespace llorch
