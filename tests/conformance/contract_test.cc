// What every backend promises beside right numbers: refusals, kv blocks, padding, and that a row's
// result is the same to the bit whatever else is in the step.
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "rig.h"

namespace llorch {
namespace {

constexpr int kVocab = 83;
constexpr int kBlockTokens = 8;
constexpr int kMaxRows = 140;
constexpr int kWindow = 25;  // tokens

// A layer that sees everything, and two with a window, of which the net uses the second.
KvSpec kv_spec(int block_tokens = kBlockTokens) {
  return {.groups = {{.layers = 1}, {.layers = 2, .window = kWindow}},
          .kv_heads = 2,
          .head_dim = 20,
          .block_tokens = block_tokens,
          .type = DType::kF32};
}

// Two layers of a small decoder with biases, in bf16 weights: all ops at once. The second has
// LayerNorms, experts beside a plain MLP, and a sum of its own for each.
struct Net {
  explicit Net(Rig& rig, KvSpec spec = kv_spec()) : kv(std::move(spec)) {
    const auto weight = [&](int rows, int cols, uint32_t seed, bool biased = false) {
      const auto bias = biased ? TestNumbers(seed + 50).floats(static_cast<size_t>(rows), 0.5)
                               : std::vector<float>{};
      return rig.pack(random_matrix(rows, cols, seed, 0.3), DType::kBF16, bias).weight;
    };
    head = table = weight(kVocab, 72, 1);
    norm = rig.pack(random_matrix(1, 72, 2), DType::kF32).weight;
    qkv = weight(160, 72, 3, true);
    out = weight(72, 80, 4);
    gate_up = weight(2 * 300, 72, 5);
    down = weight(72, 300, 6);
    norm_bias = rig.pack(random_matrix(1, 72, 7), DType::kF32).weight;
    head_gain = rig.pack(random_matrix(1, 20, 8), DType::kF32).weight;
    up = weight(90, 72, 9, true);
    up_down = weight(72, 90, 10, true);
    router = weight(kExperts, 72, 11);
    for (uint32_t e = 0; e < kExperts; ++e) {
      expert_gate_up.push_back(weight(2 * 30, 72, 100 + e));
      expert_down.push_back(weight(72, 30, 200 + e));
    }
    shared_gate_up = weight(2 * 44, 72, 12);
    shared_down = weight(72, 44, 13);
    shared_gate = rig.pack(random_matrix(1, 72, 14), DType::kF32).weight;
    rope.dims = 20;
    for (int i = 0; i < 10; ++i) rope.inv_freq.push_back(1.0f / static_cast<float>(1 + i * i));
    rig.create_kv(kv, 1);
    rig.prepare(forward(), kMaxRows);
    rig.create_kv(kv, 64);
  }

  Forward forward() const {
    return [this](Ops& op) {
      const Norm rms{NormKind::kRms, 1e-5f, &norm},
          layer{NormKind::kLayer, 1e-5f, &norm, &norm_bias},
          head_norm{NormKind::kLayer, 1e-5f, &head_gain};
      Attention spec{.heads = 4, .kv_heads = 2, .head_dim = 20, .scale = 0.3f, .rope = &rope};
      Tensor sum = op.embed(table), x = op.norm(sum, rms);
      x = op.add_norm(op.linear(op.attention(op.linear(x, qkv), spec), out), &sum, rms);
      x = op.add_norm(op.mlp(x, gate_up, down, Act::kSilu), &sum, layer);
      spec.group = spec.layer = 1;
      spec.window = kWindow;
      spec.q_norm = spec.k_norm = &head_norm;
      op.add(op.linear(op.attention(op.linear(x, qkv), spec), out), &sum);
      op.add(op.plain_mlp(x, up, up_down, Act::kGelu), &sum);
      x = op.add_norm(op.moe(x, experts()), &sum, layer);
      return op.logits(x, head);
    };
  }

  Moe experts() const {
    return {.router = &router,
            .gate_up = expert_gate_up,
            .down = expert_down,
            .top_k = 3,
            .shared_gate_up = &shared_gate_up,
            .shared_down = &shared_down,
            .shared_gate = &shared_gate};
  }

  static constexpr int kExperts = 7;
  KvSpec kv;
  Rope rope;
  Weight table, head, norm, qkv, out, gate_up, down, norm_bias, head_gain, up, up_down, router;
  Weight shared_gate_up, shared_down, shared_gate;
  std::vector<Weight> expert_gate_up, expert_down;
};

std::vector<int32_t> tokens_of(uint32_t seed, int count) {
  TestNumbers numbers(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(numbers.unit() * kVocab);
  return ids;
}

// Blocks first, first + 1, ... for `tokens` tokens.
std::vector<int32_t> blocks_from(int32_t first, int tokens) {
  std::vector<int32_t> blocks(static_cast<size_t>((tokens + kBlockTokens - 1) / kBlockTokens));
  std::iota(blocks.begin(), blocks.end(), first);
  return blocks;
}

std::vector<int32_t> part(const std::vector<int32_t>& all, int first, int count) {
  return {all.begin() + first, all.begin() + first + count};
}

std::vector<float> rows_of(const Matrix& m, int first, int count) {
  return {m.values.begin() + first * m.cols, m.values.begin() + (first + count) * m.cols};
}

// All rows of one sequence, in chunks.
std::vector<float> alone(Rig& rig, const Net& net, const std::vector<int32_t>& ids,
                         const std::vector<int>& chunks, int32_t first_block = 0) {
  std::vector<float> all;
  const auto table = blocks_from(first_block, static_cast<int>(ids.size()));
  int position = 0;
  for (size_t i = 0; position < static_cast<int>(ids.size()); ++i) {
    const int count = std::min(chunks[i % chunks.size()], static_cast<int>(ids.size()) - position);
    Rows rows(2);
    rows.add(part(ids, position, count), position, table, kBlockTokens);
    rows.want_all();
    const Matrix out = rig.run(net.forward(), rows);
    all.insert(all.end(), out.values.begin(), out.values.end());
    position += count;
  }
  return all;
}

void expect_refused(const std::function<void()>& call, const std::string& text) {
  try {
    call();
    ADD_FAILURE() << "not refused: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(BackendContract, SameBitsHoweverPrefillIsCut) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(1, 100);
  const auto whole = alone(rig, net, ids, {100});
  for (const std::vector<int>& chunks :
       {std::vector<int>{1}, {2}, {3, 5}, {7}, {16}, {13, 64, 1}, {99}}) {
    SCOPED_TRACE(chunks[0]);
    EXPECT_TRUE(alone(rig, net, ids, chunks) == whole);
  }
}

TEST(BackendContract, SameBitsInABatchOfAnySize) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(2, 70), other = tokens_of(3, 20);
  const auto want = alone(rig, net, ids, {70});
  const auto table = blocks_from(0, 70), table2 = blocks_from(20, 20);
  for (int size = 1; size <= 64; ++size) {
    // The sequence's first `size` tokens, then its next alone beside another's prompt.
    Rows first(2);
    first.add(part(ids, 0, size), 0, table, kBlockTokens);
    first.want_all();
    ASSERT_TRUE(rig.run(net.forward(), first).values ==
                std::vector<float>(want.begin(), want.begin() + size * kVocab));
    Rows second(2);
    if (size % 2 == 0) second.add(part(other, 0, size % 20 + 1), 0, table2, kBlockTokens);
    const int row = second.size();
    second.add(part(ids, size, 1), size, table, kBlockTokens);
    if (size % 3 != 0) second.add(part(other, 0, 1), 0, blocks_from(30, 1), kBlockTokens);
    second.want_all();
    ASSERT_TRUE(
        rows_of(rig.run(net.forward(), second), row, 1) ==
        std::vector<float>(want.begin() + size * kVocab, want.begin() + (size + 1) * kVocab))
        << "after " << size << " tokens";
  }
}

TEST(BackendContract, SameBitsOnAnyNumberOfThreads) {
  const auto ids = tokens_of(4, 90);
  std::vector<float> want;
  for (const int threads : {1, 2, 3, 5}) {
    Rig rig(threads);
    const Net net(rig);
    auto got = alone(rig, net, ids, {33, 1, 40, 1, 15});
    if (want.empty())
      want = std::move(got);
    else
      EXPECT_TRUE(got == want) << threads << " threads";
  }
}

TEST(BackendContract, SameBitsOnBlocksOfAnySize) {
  const auto ids = tokens_of(5, 75);
  std::vector<float> want;
  for (const int block_tokens : {1, 3, 8, 16, 128}) {
    Rig rig;
    const Net net(rig, kv_spec(block_tokens));
    rig.create_kv(net.kv, 80);
    std::vector<int32_t> table(static_cast<size_t>((74 + block_tokens) / block_tokens));
    std::iota(table.rbegin(), table.rend(), 2);
    std::vector<float> got;
    for (const auto& [first, count] : {std::pair{0, 40}, {40, 35}}) {
      Rows rows(2);
      rows.add(part(ids, first, count), first, table, block_tokens);
      rows.want_all();
      const Matrix out = rig.run(net.forward(), rows);
      got.insert(got.end(), out.values.begin(), out.values.end());
    }
    if (want.empty())
      want = std::move(got);
    else
      EXPECT_TRUE(got == want) << "blocks of " << block_tokens;
  }
}

// Sequences decoded together after record(), which may replay their steps: the same bits as alone,
// for any number of them, for some rows of one (as drafts have) and beside prompts.
TEST(BackendContract, SameBitsWhereStepsAreReplayed) {
  constexpr int kSequences = 9, kLength = 40, kBlocks = 5;
  Rig rig;
  const Net net(rig);
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> want;
  for (int s = 0; s < kSequences; ++s) {
    ids.push_back(tokens_of(static_cast<uint32_t>(20 + s), kLength));
    want.push_back(alone(rig, net, ids.back(), {kLength}));
  }
  rig.backend.record(net.forward());
  std::vector<int> known(kSequences, 0);
  const auto step = [&](const std::vector<int>& counts) {
    Rows rows(2);
    for (size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      rows.add(part(ids[s], known[s], counts[s]), known[s],
               blocks_from(static_cast<int32_t>(s) * kBlocks, kLength), kBlockTokens);
    }
    rows.want_all();
    const Matrix got = rig.run(net.forward(), rows);
    for (int s = 0, row = 0; s < static_cast<int>(counts.size()); ++s) {
      const int count = counts[static_cast<size_t>(s)];
      int& first = known[static_cast<size_t>(s)];
      const auto begin = want[static_cast<size_t>(s)].begin() + first * kVocab;
      ASSERT_TRUE(rows_of(got, row, count) == std::vector<float>(begin, begin + count * kVocab))
          << "sequence " << s << ", " << count << " rows from " << first;
      row += count;
      first += count;
    }
  };
  step({1, 1, 1, 1, 1, 1, 1, 1, 1});
  step({1});
  step({0, 1, 1});
  step({1, 0, 1, 1});
  step({3, 1, 0, 5});
  step({0, 0, 0, 0, 2});
  step({1, 1, 1, 1, 1, 1, 1});
  step({1, 1, 30, 1});
  step({4, 4, 4, 4, 4, 4, 4, 4, 4});
}

TEST(BackendContract, PaddingRowsWriteNothingAndChangeNothing) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(6, 30);
  const auto want = alone(rig, net, ids, {29, 1});
  const auto table = blocks_from(0, 30);
  Rows first(2);
  first.add(part(ids, 0, 29), 0, table, kBlockTokens);
  rig.run(net.forward(), first);
  Rows padding(2);
  padding.add_padding(40);
  padding.want_all();
  rig.run(net.forward(), padding);
  Rows last(2);
  last.add_padding(3);
  last.add(part(ids, 29, 1), 29, table, kBlockTokens);
  last.add_padding(9);
  last.want_all();
  EXPECT_TRUE(rows_of(rig.run(net.forward(), last), 3, 1) ==
              std::vector<float>(want.end() - kVocab, want.end()));
}

TEST(BackendContract, SameBitsWithoutTheBlocksThatNoRowSees) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(11, 90);
  const auto want = alone(rig, net, ids, {60, 10, 20});
  const auto table = blocks_from(0, 90);
  for (const auto& [first, count] : {std::pair{60, 10}, {70, 20}}) {
    Table seen = table;
    std::fill_n(seen.begin(), (first - kWindow + 1) / kBlockTokens, -1);
    Rows rows(2);
    rows.add(part(ids, first, count), first, std::vector<Table>{table, seen}, kBlockTokens);
    rows.want_all();
    EXPECT_TRUE(
        rig.run(net.forward(), rows).values ==
        std::vector<float>(want.begin() + first * kVocab, want.begin() + (first + count) * kVocab));
    seen[static_cast<size_t>((first - kWindow + 1) / kBlockTokens)] = -1;
    Rows blind(2);
    blind.add(part(ids, first, count), first, std::vector<Table>{table, seen}, kBlockTokens);
    blind.want_all();
    expect_refused([&] { rig.run(net.forward(), blind); }, "[attention] sequence 0 has no block");
  }
}

TEST(BackendContract, CopiesABlockOfEveryLayerOfAGroup) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(7, 16);
  const auto want = alone(rig, net, ids, {15, 1});
  const auto last_on = [&](const std::vector<Table>& tables) {
    Rows rows(2);
    rows.add(part(ids, 15, 1), 15, tables, kBlockTokens);
    rows.want_all();
    return rig.run(net.forward(), rows).values;
  };
  const std::vector<float> expected(want.end() - kVocab, want.end());
  rig.backend.copy_block(0, 1, 60);
  EXPECT_TRUE(last_on({{0, 60}, {0, 1}}) == expected);
  EXPECT_FALSE(last_on({{0, 60}, {0, 60}}) == expected);
  rig.backend.copy_block(1, 1, 60);
  EXPECT_TRUE(last_on({{0, 60}, {0, 60}}) == expected);
  EXPECT_TRUE(last_on({{0, 1}, {0, 1}}) == expected);
  EXPECT_FALSE(last_on({{0, 59}, {0, 1}}) == expected);
  expect_refused([&] { rig.backend.copy_block(0, 0, 64); }, "[copy_block] block 64 of 64");
  expect_refused([&] { rig.backend.copy_block(0, -1, 0); }, "[copy_block] block -1 of 64");
  expect_refused([&] { rig.backend.copy_block(2, 0, 1); }, "[copy_block] kv group 2 of 2");
}

TEST(BackendContract, SamplesOnlyTheWantedRows) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(8, 20);
  const auto all = alone(rig, net, ids, {20});
  Rows rows(2);
  rows.add(ids, 0, blocks_from(0, 20), kBlockTokens);
  rows.wanted = {3, 19};
  const std::vector<Sampling> sampling = {{.temperature = 0},
                                          {.temperature = 0, .top_logprobs = 2}};
  rig.backend.submit(net.forward(), rows.batch(), sampling);
  const auto results = rig.backend.collect();
  ASSERT_EQ(results.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const auto row = all.begin() + rows.wanted[i] * kVocab;
    EXPECT_EQ(results[i].token, std::max_element(row, row + kVocab) - row);
    EXPECT_TRUE(results[i].logits.empty());
  }
  ASSERT_EQ(results[1].top.size(), 2u);
  EXPECT_EQ(results[1].top[0].token, results[1].token);
  rows.wanted.clear();
  rig.backend.submit(net.forward(), rows.batch(), {});
  EXPECT_TRUE(rig.backend.collect().empty());
}

TEST(BackendContract, RefusesWrongShapesAndGoesOn) {
  Rig rig;
  const Net net(rig);
  const auto ids = tokens_of(9, 10);
  const auto want = alone(rig, net, ids, {10});
  Rows rows(2);
  rows.add(ids, 0, blocks_from(0, 10), kBlockTokens);
  rows.want_all();
  const auto refused = [&](const Forward& f, const std::string& text) {
    expect_refused([&] { rig.run(f, rows); }, text);
  };
  refused([&](Ops& op) { return op.logits(op.linear(op.embed(net.table), net.out), net.table); },
          "[linear] w takes 80 columns, x has 72");
  const Norm no_vector{NormKind::kRms, 1, &net.out};
  refused([&](Ops& op) { return op.logits(op.norm(op.embed(net.table), no_vector), net.table); },
          "[norm] w is 72 x 80, want 1 x 72");
  refused(
      [&](Ops& op) {
        return op.logits(op.plain_mlp(op.embed(net.table), net.up, net.down, Act::kGelu),
                         net.table);
      },
      "[plain_mlp] w takes 300 columns, w has 90 rows");
  Moe few = net.experts();
  few.down = few.down.first(6);
  refused([&](Ops& op) { return op.logits(op.moe(op.embed(net.table), few), net.table); },
          "[moe] down; got 6, want 7");
  refused([&](Ops& op) { return op.embed(net.table); }, "[submit]");
  refused(
      [&](Ops& op) {
        const Attention spec{.layer = 2, .heads = 4, .kv_heads = 2, .head_dim = 20};
        return op.logits(op.attention(op.linear(op.embed(net.table), net.qkv), spec), net.table);
      },
      "[attention] layer 2 of 1");
  Rows wrong = rows;
  wrong.tokens[3] = kVocab;
  expect_refused([&] { rig.run(net.forward(), wrong); }, "[embed] w has 83 rows, token is 83");
  wrong = rows;
  wrong.groups[0].slots[3] = 63;
  expect_refused([&] { rig.run(net.forward(), wrong); }, "[batch] row 3: slot 63");
  expect_refused([&] { rig.backend.submit(net.forward(), rows.batch(), {}); },
                 "[submit] sampling entries; got 0, want 10");
  Moe many = net.experts();
  many.top_k = 4;
  const Forward more = [&](Ops& op) {
    return op.logits(op.moe(op.embed(net.table), many), net.table);
  };
  Rows most(2);
  most.add_padding(kMaxRows);
  expect_refused([&] { rig.run(more, most); }, "[moe] more experts per row than prepare() saw");
  EXPECT_TRUE(alone(rig, net, ids, {10}) == want);
}

TEST(BackendContract, GivesNoTokenForARowThatIsNotFiniteAndSparesTheOthers) {
  Rig rig;
  const Net net(rig);
  Matrix poisoned(4, 72);
  poisoned.at(2, 5) = std::numeric_limits<float>::quiet_NaN();
  const Pair head = rig.pack(poisoned, DType::kF32);
  Rows rows(2);
  rows.add(tokens_of(10, 3), 0, blocks_from(0, 3), kBlockTokens);
  rows.want_all();
  const Forward poisoned_step = [&](Ops& op) {
    return op.logits(op.embed(net.table), head.weight);
  };
  EXPECT_EQ(rig.tokens(poisoned_step, rows), std::vector<int32_t>(3, -1));
  // A NaN on the way comes out of attention and the norms as one.
  Matrix table(kVocab, 72);
  table.at(0, 0) = std::numeric_limits<float>::quiet_NaN();
  Net nan_net(rig);
  nan_net.table = rig.pack(table, DType::kF32).weight;
  Rows mixed(2);
  mixed.add({0, 0, 0}, 0, blocks_from(0, 3), kBlockTokens);
  mixed.add({1, 2}, 0, blocks_from(3, 3), kBlockTokens);
  mixed.want_all();
  const std::vector<int32_t> tokens = rig.tokens(nan_net.forward(), mixed);
  EXPECT_EQ(std::vector<int32_t>(tokens.begin(), tokens.begin() + 3), std::vector<int32_t>(3, -1));
  EXPECT_GE(tokens[3], 0);
  EXPECT_GE(tokens[4], 0);
}

TEST(BackendContract, CountsItsMemory) {
  Rig rig;
  EXPECT_EQ(rig.backend.weight_bytes(), 0u);
  {
    const Net net(rig);
    const uint64_t weights = 72 * (83 + 160 + 80 + 900 + 180 + 7 + 7 * 90 + 132);
    EXPECT_GE(rig.backend.weight_bytes(), 2 * weights);
    EXPECT_LE(rig.backend.weight_bytes(), 4 * weights);
    KvSpec one{.groups = {{.layers = 1}}, .kv_heads = 1, .head_dim = 64, .block_tokens = 16};
    for (const auto& [type, bytes] : {std::pair{DType::kF32, 4.0},
                                      {DType::kBF16, 2.0},
                                      {DType::kF16, 2.0},
                                      {DType::kQ8_0, 34.0 / 32}}) {
      one.type = type;
      EXPECT_EQ(static_cast<double>(Backend::block_bytes(one, 0)), 2 * 64 * 16 * bytes);
    }
  }
  EXPECT_EQ(rig.backend.weight_bytes(), 0u);
}

TEST(BackendContract, NamesItsDeviceAndVerifiesIt) {
  Rig rig;
  rig.backend.verify_device();
  const Device device = rig.backend.device();
  EXPECT_EQ(device.name.rfind(kBackendInfo.name, 0), 0u) << device.name;
  EXPECT_GT(device.free_bytes, 0u);
  EXPECT_GE(device.total_bytes, device.free_bytes);
}

TEST(BackendContract, SaysHowMuchMemoryIsMissing) {
  Rig rig;
  const KvSpec huge{
      .groups = {{.layers = 1000}}, .kv_heads = 400, .head_dim = 256, .block_tokens = 1024};
  try {
    rig.create_kv(huge, 1000);
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_GE(error.needed_bytes(), Backend::block_bytes(huge, 0) * 1000);
    EXPECT_LT(error.free_bytes(), error.needed_bytes());
  }
}

}  // namespace
}  // namespace llorch
