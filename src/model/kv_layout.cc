#include "model/kv_layout.h"

#include <algorithm>

namespace llorch {

KvLayout kv_layout(std::span<const int> windows) {
  KvLayout layout;
  for (const int window : windows) {
    const auto group = std::find_if(layout.groups.begin(), layout.groups.end(),
                                    [&](const KvGroup& g) { return g.window == window; });
    const auto index = static_cast<int>(group - layout.groups.begin());
    if (group == layout.groups.end()) layout.groups.push_back({.layers = 0, .window = window});
    layout.of_layer.push_back({index, layout.groups[static_cast<size_t>(index)].layers++});
  }
  return layout;
}

}  // namespace llorch
