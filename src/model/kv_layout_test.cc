#include "model/kv_layout.h"

#include <vector>

#include "gtest/gtest.h"

namespace llorch {
namespace {

TEST(KvLayout, PutsLayersOfOneWindowIntoOneGroup) {
  const std::vector<int> windows = {16, 16, 0, 16, 0};
  const KvLayout layout = kv_layout(windows);
  ASSERT_EQ(layout.groups.size(), 2u);
  EXPECT_EQ(layout.groups[0].window, 16);
  EXPECT_EQ(layout.groups[0].layers, 3);
  EXPECT_EQ(layout.groups[1].window, 0);
  EXPECT_EQ(layout.groups[1].layers, 2);
  const int groups[] = {0, 0, 1, 0, 1}, layers[] = {0, 1, 0, 2, 1};
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(layout.of_layer[i].group, groups[i]);
    EXPECT_EQ(layout.of_layer[i].layer, layers[i]);
  }
}

}  // namespace
}  // namespace llorch
