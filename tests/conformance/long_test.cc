// Attention over sequences long enough to be computed in pieces: right numbers, and the same bits
// whatever the cut, the threads, the batch and the kv blocks are.
#include <algorithm>
#include <numeric>
#include <vector>

#include "rig.h"

namespace llorch {
namespace {

constexpr int kLength = 2300;  // tokens, more than two pieces of the CPU backend's
constexpr int kVocab = 61, kHeads = 4, kKvHeads = 2, kHeadDim = 20, kOut = kHeads * kHeadDim;
constexpr int kBlockTokens = 16, kMaxRows = 1200;
constexpr int kWindow = 1500;

// Attention over everything plus attention in a window, each with a kv group of its own.
struct Net {
  Net(Rig& rig, DType type, int block_tokens = kBlockTokens, int sequences = 1)
      : per_block(block_tokens),
        kv{.groups = {{.layers = 1}, {.layers = 1, .window = kWindow}},
           .kv_heads = kKvHeads,
           .head_dim = kHeadDim,
           .block_tokens = block_tokens,
           .type = type} {
    table = rig.pack(random_matrix(kVocab, kOut + 2 * kKvHeads * kHeadDim, 1), DType::kF32);
    head = rig.identity(kOut);
    rope.dims = kHeadDim;
    for (int i = 0; i < kHeadDim / 2; ++i) rope.inv_freq.push_back(1 / static_cast<float>(1 + i));
    rig.create_kv(kv, 1);
    rig.prepare(forward(), kMaxRows);
    rig.create_kv(kv, sequences * blocks());
  }

  int32_t blocks() const { return (kLength - 1) / per_block + 1; }
  // The blocks of a sequence, last to first.
  Table blocks_of(int sequence) const {
    Table all(static_cast<size_t>(blocks()));
    std::iota(all.rbegin(), all.rend(), sequence * blocks());
    return all;
  }
  Attention spec(int group) const {
    return {.group = group,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = kHeadDim,
            .window = group == 0 ? 0 : kWindow,
            .scale = 0.3f,
            .rope = &rope};
  }
  Forward forward() const {
    return [this](Ops& op) {
      Tensor sum = op.attention(op.embed(table.weight), spec(0));
      op.add(op.attention(op.embed(table.weight), spec(1)), &sum);
      return op.logits(sum, head);
    };
  }

  int per_block;
  KvSpec kv;
  Pair table;
  Weight head;
  Rope rope;
};

std::vector<int32_t> tokens_of(uint32_t seed) {
  TestNumbers numbers(seed);
  std::vector<int32_t> ids(kLength);
  for (int32_t& id : ids) id = static_cast<int32_t>(numbers.unit() * kVocab);
  return ids;
}

void add(Rows& rows, const Net& net, const std::vector<int32_t>& ids, int first, int count,
         int sequence = 0) {
  rows.add({ids.begin() + first, ids.begin() + first + count}, first, net.blocks_of(sequence),
           net.per_block);
}

std::vector<float> run(Rig& rig, const Net& net, Rows rows) {
  rows.want_all();
  return rig.run(net.forward(), rows).values;
}

// All rows of a sequence, cut into chunks.
std::vector<float> alone(Rig& rig, const Net& net, const std::vector<int32_t>& ids,
                         const std::vector<int>& chunks, int sequence = 0) {
  std::vector<float> all;
  int position = 0;
  for (size_t i = 0; position < kLength; ++i) {
    const int count = std::min(chunks[i % chunks.size()], kLength - position);
    Rows rows(2);
    add(rows, net, ids, position, count, sequence);
    const auto out = run(rig, net, std::move(rows));
    all.insert(all.end(), out.begin(), out.end());
    position += count;
  }
  return all;
}

std::vector<float> row_of(const std::vector<float>& all, int row) {
  return {all.begin() + row * kOut, all.begin() + (row + 1) * kOut};
}

TEST(LongAttention, IsTheOracles) {
  const auto ids = tokens_of(1);
  std::vector<int32_t> positions(kLength);
  std::iota(positions.begin(), positions.end(), 0);
  Rig rig;
  const Net net(rig, DType::kF32);
  Matrix got(kLength, kOut);
  got.values = alone(rig, net, ids, {kMaxRows, kLength - kMaxRows - 9, 1});
  const Matrix x = ref::embed(net.table.values, ids, 1);
  ref::AttentionSpec spec{.heads = kHeads,
                          .kv_heads = kKvHeads,
                          .head_dim = kHeadDim,
                          .scale = 0.3f,
                          .rope = &net.rope};
  ref::KvCache cache, windowed;
  const Matrix all = ref::attention(x, positions, spec, &cache);
  spec.window = kWindow;
  const Matrix want = ref::add(all, ref::attention(x, positions, spec, &windowed));
  // A score's error e changes a result by 2 e times the largest value, which is below 1.
  const double largest = std::sqrt(kHeadDim);
  const double score = 0.3 * 3 * dot_tolerance(largest, largest, kHeadDim);
  expect_close(got, want, [&](int, int) { return 2 * (2 * score + dot_tolerance(1, 1, kLength)); });
}

TEST(LongAttention, HasTheSameBitsHoweverThePromptIsCut) {
  const auto ids = tokens_of(2);
  for (const DType type : kKvTypes) {
    SCOPED_TRACE(name(type));
    Rig rig;
    const Net net(rig, type);
    const auto whole = alone(rig, net, ids, {kMaxRows});
    for (const std::vector<int>& chunks :
         {std::vector<int>{1}, {1023, 1}, {1024}, {700, 1, 323, 1, 1, 60}, {2, 513}}) {
      SCOPED_TRACE(chunks[0]);
      EXPECT_TRUE(alone(rig, net, ids, chunks) == whole);
    }
  }
}

TEST(LongAttention, HasTheSameBitsOnAnyNumberOfThreads) {
  const auto ids = tokens_of(3);
  std::vector<float> want;
  for (const int threads : {1, 2, 3, 5}) {
    Rig rig(threads);
    const Net net(rig, DType::kBF16);
    auto got = alone(rig, net, ids, {1000, 1, 22, 1, 1, 1, 400});
    if (want.empty())
      want = std::move(got);
    else
      EXPECT_TRUE(got == want) << threads << " threads";
  }
}

TEST(LongAttention, HasTheSameBitsOnBlocksOfAnySize) {
  const auto ids = tokens_of(4);
  for (const DType type : {DType::kF16, DType::kQ8_0}) {
    std::vector<float> want;
    for (const int block_tokens : {1, 7, 16, 96, 128}) {
      Rig rig;
      const Net net(rig, type, block_tokens);
      auto got = alone(rig, net, ids, {1100, 1, 1, 900, 1});
      if (want.empty())
        want = std::move(got);
      else
        EXPECT_TRUE(got == want) << name(type) << ", blocks of " << block_tokens;
    }
  }
}

// One alone, some together (of which each has more pieces than are computed at a time), and long
// ones among many short: whoever computes the pieces.
TEST(LongAttention, HasTheSameBitsInAnyBatch) {
  constexpr int kSequences = 4;
  for (const int threads : {1, 2, 4}) {
    Rig rig(threads);
    const Net net(rig, DType::kF32, kBlockTokens, kSequences);
    std::vector<std::vector<int32_t>> ids;
    std::vector<std::vector<float>> want;
    for (int s = 0; s < kSequences; ++s) {
      ids.push_back(tokens_of(static_cast<uint32_t>(5 + s)));
      want.push_back(alone(rig, net, ids.back(), {kMaxRows}, s));
    }
    for (const std::vector<int>& lengths :
         {std::vector<int>{2299}, {1025, 2048}, {2100, 2200, 2299, 1500}, {2299, 3, 1024, 1}}) {
      for (const int prompt : {1, 40, 300}) {
        SCOPED_TRACE(testing::Message() << threads << " threads, " << lengths.size()
                                        << " sequences, and one with " << prompt << " rows");
        Rows rows(2);
        for (size_t s = 1; s < lengths.size(); ++s) {
          add(rows, net, ids[s], lengths[s], 1, static_cast<int>(s));
        }
        const int first = rows.size(), begin = lengths[0] - prompt + 1;
        add(rows, net, ids[0], begin, prompt, 0);
        const auto got = run(rig, net, rows);
        for (size_t s = 1; s < lengths.size(); ++s) {
          EXPECT_TRUE(row_of(got, static_cast<int>(s) - 1) == row_of(want[s], lengths[s])) << s;
        }
        for (int i = 0; i < prompt; ++i) {
          ASSERT_TRUE(row_of(got, first + i) == row_of(want[0], begin + i)) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace llorch
