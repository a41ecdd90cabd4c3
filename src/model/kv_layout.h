// Which layers share a block table of the kv cache: those with the same window.
#pragma once

#include <span>
#include <vector>

#include "ops/backend.h"

namespace llorch {

struct KvLayout {
  struct Place {
    int group = 0, layer = 0;  // as in Attention
  };
  std::vector<KvGroup> groups;  // in the order of their first layers
  std::vector<Place> of_layer;
};

// `windows` has one entry for each layer.
KvLayout kv_layout(std::span<const int> windows);

}  // namespace llorch
