// The fake backend: what it answers, and that it notices wrong kv use.
#include <stdlib.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "gtest/gtest.h"
#include "ops/backend.h"

namespace llorch {
namespace {

constexpr int kVocab = 50;
constexpr int32_t kBlocks[] = {8};
const KvSpec kKv{.groups = {{.layers = 1}},
                 .kv_heads = 1,
                 .head_dim = 4,
                 .block_tokens = 2,
                 .type = DType::kF32};

// One layer's worth of weights, all zero.
struct Net {
  explicit Net(Backend& backend)
      : table(pack(backend, "table", {kVocab, 4})), qkv(pack(backend, "qkv", {12, 4})) {}

  static Weight pack(Backend& backend, const char* name, Shape shape) {
    const std::vector<std::byte> bytes(static_cast<size_t>(shape.rows * shape.cols) * 4);
    const RawTensor tensor{name, DType::kF32, shape, bytes};
    return backend.pack({&tensor, 1}, DType::kF32);
  }

  Forward forward() const {
    return [this](Ops& op) {
      const Attention spec{.layer = 0, .heads = 1, .kv_heads = 1, .head_dim = 4};
      return op.logits(op.attention(op.linear(op.embed(table), qkv), spec), table);
    };
  }

  Weight table, qkv;
};

// One sequence's rows of a step, the last one wanted.
struct Rows {
  Rows(std::vector<int32_t> t, int32_t first_position, std::vector<int32_t> table)
      : tokens(std::move(t)), blocks(std::move(table)) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const int32_t position = first_position + static_cast<int32_t>(i);
      positions.push_back(position);
      slots.push_back(blocks[static_cast<size_t>(position / 2)] * 2 + position % 2);
    }
    query_start = {0, static_cast<int32_t>(tokens.size())};
    kv_len = {positions.back() + 1};
    wanted = {static_cast<int32_t>(tokens.size()) - 1};
  }
  Batch batch() const {
    return {tokens, positions, slots,  query_start,
            kv_len, blocks,    wanted, static_cast<int32_t>(blocks.size())};
  }

  std::vector<int32_t> tokens, blocks, positions, slots, query_start, kv_len, wanted;
};

std::vector<Sampled> step(Backend& backend, const Net& net, const Rows& rows,
                          const Sampling& sampling = {.temperature = 0}) {
  backend.submit(net.forward(), rows.batch(), {&sampling, 1});
  return backend.collect();
}

class Fake : public testing::Test {
 protected:
  Fake() : net(backend) { backend.create_kv(kKv, kBlocks); }
  Backend backend{BackendOptions{}};
  Net net;
};

TEST_F(Fake, SaysTheNextTokenIsOneMore) {
  EXPECT_EQ(step(backend, net, {{5, 6, 7}, 0, {3, 1}})[0].token, 8);
  EXPECT_EQ(step(backend, net, {{kVocab - 1}, 3, {3, 1}})[0].token, 0);
}

TEST_F(Fake, GivesBackARowWhoseTopIsTheNextToken) {
  const auto result = step(backend, net, {{9}, 0, {0}}, {.temperature = 0, .keep_logits = true})[0];
  EXPECT_EQ(result.token, 10);
  ASSERT_EQ(result.logits.size(), static_cast<size_t>(kVocab));
  EXPECT_EQ(result.logits[10], 4);
  EXPECT_LT(result.logits[11], 1);
}

TEST_F(Fake, DrawsByTheSeed) {
  std::vector<int32_t> tokens[2];
  for (auto& run : tokens) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      run.push_back(step(backend, net, {{9}, 0, {0}}, {.seed = seed})[0].token);
    }
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_NE(tokens[0], std::vector<int32_t>(20, tokens[0][0]));
}

void expect_refused(Backend& backend, const Net& net, const Rows& rows, const std::string& text) {
  try {
    step(backend, net, rows);
    FAIL() << "not refused: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST_F(Fake, RefusesAPositionWhoseSlotWasNeverWritten) {
  step(backend, net, {{5, 6}, 0, {3, 1}});
  expect_refused(backend, net, {{8}, 3, {3, 1}}, "never written");
}

TEST_F(Fake, RefusesABlockThatAnotherSequenceWrote) {
  step(backend, net, {{1, 2, 3, 4}, 0, {0, 1}});
  step(backend, net, {{5, 6, 7, 8}, 0, {2, 3}});
  EXPECT_EQ(step(backend, net, {{9}, 4, {2, 3, 4}})[0].token, 10);
  expect_refused(backend, net, {{9}, 4, {2, 1, 4}}, "another sequence");
  expect_refused(backend, net, {{9}, 4, {3, 2, 4}}, "holds position 2");
}

TEST_F(Fake, RefusesASlotThatTheBlockTableDoesNotName) {
  Rows rows{{1}, 0, {0}};
  rows.slots[0] = 3;
  expect_refused(backend, net, rows, "slot 3 is not where block 0 puts position 0");
}

TEST_F(Fake, CopiesABlockWithItsHistory) {
  step(backend, net, {{1, 2, 3}, 0, {0, 1}});
  backend.copy_block(0, 1, 5);
  EXPECT_EQ(step(backend, net, {{40}, 3, {0, 5}})[0].token, 41);
  EXPECT_EQ(step(backend, net, {{30}, 3, {0, 1}})[0].token, 31);
}

TEST_F(Fake, TakesTheNextStepBeforeItHasGivenTheOneBefore) {
  const Sampling sampling{.temperature = 0};
  backend.submit(net.forward(), Rows({5, 6}, 0, {3, 1}).batch(), {&sampling, 1});
  {
    Rows rows({-1}, 2, {3, 1});
    Batch batch = rows.batch();
    batch.rows_before = 1;
    backend.submit(net.forward(), batch, {&sampling, 1});
    std::fill(rows.tokens.begin(), rows.tokens.end(), 40);  // it has been copied
  }
  EXPECT_EQ(backend.collect()[0].token, 7);
  EXPECT_EQ(backend.collect()[0].token, 8);
  EXPECT_TRUE(backend.collect().empty());
  EXPECT_EQ(step(backend, net, {{8}, 3, {3, 1}})[0].token, 9);
}

TEST_F(Fake, DoesWhatItIsAskedForInOrder) {
  const Sampling sampling{.temperature = 0};
  step(backend, net, {{1, 2, 3, 4}, 0, {0, 1}});
  // Another sequence takes the blocks while the first one's last step is in flight.
  backend.submit(net.forward(), Rows({5}, 4, {0, 1, 2}).batch(), {&sampling, 1});
  backend.copy_block(0, 1, 5);
  backend.submit(net.forward(), Rows({30, 31, 32}, 0, {1, 0}).batch(), {&sampling, 1});
  EXPECT_EQ(backend.collect()[0].token, 6);
  EXPECT_EQ(backend.collect()[0].token, 33);
  expect_refused(backend, net, {{5}, 4, {0, 5, 2}}, "holds position 2");
  step(backend, net, {{1, 2}, 0, {0}});
  EXPECT_EQ(step(backend, net, {{7}, 4, {0, 5, 3}})[0].token, 8);
}

TEST_F(Fake, RefusesATokenOfNoRow) {
  Rows rows({-2}, 0, {0});
  Batch batch = rows.batch();
  const Sampling sampling{.temperature = 0};
  batch.rows_before = 1;
  EXPECT_THROW(backend.submit(net.forward(), batch, {&sampling, 1}), Error);
  step(backend, net, {{1}, 0, {0}});
  EXPECT_THROW(backend.submit(net.forward(), batch, {&sampling, 1}), Error);
}

// Two kv groups, the second with a window of 3 and longrope.
struct TwoGroups {
  explicit TwoGroups(Backend& b) : backend(b), net(b) {
    const int32_t blocks[] = {8, 4};
    backend.create_kv({.groups = {{.layers = 1}, {.layers = 1, .window = 3}},
                       .kv_heads = 1,
                       .head_dim = 4,
                       .block_tokens = 2,
                       .type = DType::kF32},
                      blocks);
  }
  Forward forward() const {
    return [this](Ops& op) {
      Attention spec{.heads = 1, .kv_heads = 1, .head_dim = 4};
      const Tensor x = op.linear(op.embed(net.table), net.qkv);
      op.attention(x, spec);
      spec.group = 1;
      spec.window = 3;
      spec.rope = &rope;
      return op.logits(op.attention(x, spec), net.table);
    };
  }
  // Tokens from `position` on; tables of both groups.
  int32_t step(const std::vector<int32_t>& tokens, int32_t position, std::vector<int32_t> full,
               const std::vector<int32_t>& window, int32_t rope_len = 1) {
    Rows rows(tokens, position, full), other(tokens, position, window);
    rows.slots.insert(rows.slots.end(), other.slots.begin(), other.slots.end());
    full.insert(full.end(), window.begin(), window.end());
    Batch batch = rows.batch();
    batch.blocks = full;
    const std::vector<int32_t> lengths(tokens.size(), rope_len);
    batch.rope_len = lengths;
    const Sampling sampling{.temperature = 0};
    backend.submit(forward(), batch, {&sampling, 1});
    return backend.collect()[0].token;
  }
  void refuses(const std::function<void()>& call, const std::string& text) {
    try {
      call();
      ADD_FAILURE() << "not refused: " << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }

  Backend& backend;
  Net net;
  const Rope rope{.dims = 4, .inv_freq = {1, 1}, .trained = 8, .long_inv_freq = {2, 2}};
};

TEST_F(Fake, FollowsEveryGroupsOwnTable) {
  TwoGroups two(backend);
  two.step({1, 2, 3, 4}, 0, {5, 6}, {0, 3});
  // Positions 3 and 4 are what the window of row 5 shows beside it: block 0 has been given up.
  EXPECT_EQ(two.step({5}, 4, {5, 6, 7}, {-1, 3, 1}), 6);
  EXPECT_EQ(two.step({6}, 5, {5, 6, 7}, {-1, 3, 1}), 7);
  two.refuses([&] { two.step({6}, 5, {5, 6, 7}, {-1, 2, 1}); }, "never written");
  // Another sequence writes to block 3 of the second group while the first still sees it.
  two.step({9, 9}, 0, {0}, {3});
  two.refuses([&] { two.step({6}, 5, {5, 6, 7}, {-1, 3, 1}); }, "holds position 1");
}

TEST_F(Fake, RefusesGroupsThatHoldDifferentTokens) {
  TwoGroups two(backend);
  two.step({1, 2}, 0, {0}, {0});
  two.step({1, 7}, 0, {1}, {1});
  two.refuses([&] { two.step({3}, 2, {0, 2}, {1, 2}); }, "different tokens");
}

TEST_F(Fake, RefusesKeysThatLongropeTurnedForAnotherLength) {
  TwoGroups two(backend);
  two.step({1, 2}, 0, {0}, {0}, 8);
  EXPECT_EQ(two.step({3}, 2, {0, 1}, {0, 1}, 8), 4);
  two.refuses([&] { two.step({4}, 3, {0, 1}, {0, 1}, 9); }, "another length");
  two.step({1, 2, 3}, 0, {0, 1}, {0, 1}, 9);
  EXPECT_EQ(two.step({4}, 3, {0, 1}, {0, 1}, 9), 5);
}

TEST_F(Fake, FailsAtTheStepThatTheEnvironmentNames) {
  setenv("LLORCH_FAKE_FAIL_AT_STEP", "2", 1);
  Backend failing{BackendOptions{}};
  unsetenv("LLORCH_FAKE_FAIL_AT_STEP");
  const Net own(failing);
  failing.create_kv(kKv, kBlocks);
  EXPECT_EQ(step(failing, own, {{1}, 0, {0}})[0].token, 2);
  try {
    step(failing, own, {{2}, 1, {0}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
  }
}

TEST_F(Fake, RefusesMoreBlocksThanMemoryIsFree) {
  setenv("LLORCH_FAKE_FREE_BYTES", "1000", 1);
  Backend small{BackendOptions{}};
  unsetenv("LLORCH_FAKE_FREE_BYTES");
  EXPECT_EQ(small.device().free_bytes, 1000u);
  const int32_t too_many[] = {16}, fitting[] = {15};
  EXPECT_THROW(small.create_kv(kKv, too_many), OutOfMemory);
  small.create_kv(kKv, fitting);
  EXPECT_EQ(small.device().free_bytes, 1000u - 15 * Backend::block_bytes(kKv, 0));
}

TEST_F(Fake, HasAMeterIfTheEnvironmentSaysSo) {
  EXPECT_EQ(backend.energy_j(), std::nullopt);
  setenv("LLORCH_FAKE_STEP_JOULES", "5", 1);
  Backend fine{BackendOptions{}};
  setenv("LLORCH_FAKE_METER_JOULES", "12", 1);
  Backend coarse{BackendOptions{}};
  unsetenv("LLORCH_FAKE_STEP_JOULES");
  unsetenv("LLORCH_FAKE_METER_JOULES");
  const auto readings = [](Backend& metered) {
    const Net own(metered);
    metered.create_kv(kKv, kBlocks);
    std::vector<double> all = {metered.energy_j().value()};
    for (int32_t i = 0; i < 5; ++i) {
      step(metered, own, {{i}, i, {0, 1, 2}});
      all.push_back(metered.energy_j().value());
    }
    return all;
  };
  EXPECT_EQ(readings(fine), (std::vector<double>{0, 5, 10, 15, 20, 25}));
  EXPECT_EQ(readings(coarse), (std::vector<double>{0, 0, 0, 12, 12, 24}));
}

TEST_F(Fake, DrawsWattsAllTheTime) {
  setenv("LLORCH_FAKE_WATTS", "1000000", 1);
  const Backend metered{BackendOptions{}};
  unsetenv("LLORCH_FAKE_WATTS");
  const double first = metered.energy_j().value();
  double second = first;
  while (second == first) second = metered.energy_j().value();
  EXPECT_GT(second, first);
}

}  // namespace
}  // namespace llorch
