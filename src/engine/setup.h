// What an engine is made with: its options, checked, and the memory that it takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/rope_length.h"
#include "model/model.h"
#include "ops/backend.h"

namespace llorch {

EngineOptions checked_options(EngineOptions options, const ModelConfig& model);
// Rows for drafts, beside a full batch; as many at least are left to prompts.
int32_t draft_rows(const EngineOptions& options);
RopeLengths rope_lengths(const Model& model);
BatchLimits batch_limits(const EngineOptions& options, const Model& model, size_t kv_groups);
// Takes kv blocks and scratch; gives the blocks of each group. Scratch is measured before the
// blocks, which get what is left.
std::vector<int32_t> take_memory(Backend& backend, const Model& model, const EngineOptions& options,
                                 const KvSpec& spec, const KvShape& shape, BatchBuilder& builder);

}  // namespace llorch
