// Argument checks: each wrong shape is refused with a text that names it.
#include "ops/shapes.h"

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "gtest/gtest.h"

namespace llorch {
namespace {

// Two sequences of 3 and 1 rows on blocks of two tokens.
struct Arrays {
  std::vector<int32_t> tokens = {4, 5, 6, 7}, positions = {0, 1, 2, 4}, slots = {6, 7, 2, 8};
  std::vector<int32_t> query_start = {0, 3, 4}, kv_len = {3, 5}, blocks = {3, 1, -1, 0, 2, 4};
  std::vector<int32_t> wanted = {2, 3};
  int32_t width = 3;
  std::vector<int32_t> rope_len = {};
  Batch batch() const {
    return {tokens, positions, slots, query_start, kv_len, blocks, wanted, width, rope_len};
  }
};
const shapes::KvLimits kKv{{.groups = {{.layers = 2}},
                            .kv_heads = 2,
                            .head_dim = 8,
                            .block_tokens = 2,
                            .type = DType::kF32},
                           {5}};

void expect_refused(const std::function<void()>& check, const std::string& text) {
  try {
    check();
    ADD_FAILURE() << "not refused: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_EQ(std::string(error.what()), text);
  }
}

void expect_batch_refused(const Arrays& arrays, const std::string& text) {
  expect_refused([&] { shapes::batch(arrays.batch(), kKv); }, text);
}

TEST(Shapes, AcceptABatchOfTwoSequences) {
  Arrays arrays;
  shapes::batch(arrays.batch(), kKv);
  arrays.slots = {-1, -1, -1, -1};
  arrays.positions = {90, 90, 90, 90};
  shapes::batch(arrays.batch(), kKv);
}

TEST(Shapes, RefuseArraysThatDoNotFitTogether) {
  Arrays a;
  a.positions.pop_back();
  expect_batch_refused(a, "[batch] positions; got 3, want 4");
  a = {};
  a.slots.push_back(1);
  expect_batch_refused(a, "[batch] slots; got 5, want 4");
  a = {};
  a.query_start = {0, 4};
  expect_batch_refused(a, "[batch] query_start; got 2, want 3");
  a = {};
  a.query_start = {0, 3, 5};
  expect_batch_refused(a, "[batch] last of query_start; got 5, want 4");
  a = {};
  a.query_start = {0, 5, 4};
  expect_batch_refused(a, "[batch] query_start is not ascending");
  a = {};
  a.width = 2;
  expect_batch_refused(a, "[batch] blocks; got 6, want 4");
  a = {};
  a.wanted = {3, 2};
  expect_batch_refused(a, "[batch] logit_rows are not ascending at row 2");
  a = {};
  a.wanted = {4};
  expect_batch_refused(a, "[batch] logit row 4 of 4 rows");
  a = {};
  a.rope_len = {1, 2};
  expect_batch_refused(a, "[batch] rope_len; got 2, want 4");
  expect_batch_refused({{}, {}, {}, {0}, {}, {}, {}}, "[batch] tokens; got 0, want 1");
}

TEST(Shapes, RefuseSlotsAndBlocksOutOfPlace) {
  Arrays a;
  a.slots[1] = 6;
  expect_batch_refused(a, "[batch] row 1: slot 6 is not where block 3 puts position 1");
  a = {};
  a.blocks[0] = 5;
  expect_batch_refused(a, "[batch] block 5 of 5");
  a = {};
  a.positions[2] = 3;
  expect_batch_refused(a, "[batch] row 2: position 3 of kv_len 3");
  a = {};
  a.positions[3] = 6;
  a.kv_len[1] = 7;
  expect_batch_refused(a, "[batch] row 3: position 6 is past the block table");
}

TEST(Shapes, CheckEveryKvGroup) {
  shapes::KvLimits kv = kKv;
  kv.spec.groups.push_back({.layers = 1, .window = 2});
  kv.blocks.push_back(3);
  Arrays a;
  expect_refused([&] { shapes::batch(a.batch(), kv); }, "[batch] slots; got 4, want 8");
  a.slots.insert(a.slots.end(), {0, 1, 4, 2});
  expect_refused([&] { shapes::batch(a.batch(), kv); }, "[batch] blocks; got 6, want 12");
  a.blocks.insert(a.blocks.end(), {0, 2, -1, -1, -1, 1});
  shapes::batch(a.batch(), kv);
  const Attention spec{.group = 1, .heads = 4, .kv_heads = 2, .head_dim = 8, .window = 1};
  EXPECT_EQ(shapes::attention({4, 64}, spec, a.batch(), kv, {}, {}), (Shape{4, 32}));
  const auto attend = [&](Attention changed) {
    return [&, changed] { shapes::attention({4, 64}, changed, a.batch(), kv, {}, {}); };
  };
  Attention wrong = spec;
  wrong.window = 2;
  expect_refused(attend(wrong), "[attention] sequence 1 has no block for tokens from 2");
  wrong = spec;
  wrong.layer = 1;
  expect_refused(attend(wrong), "[attention] layer 1 of 1");
  wrong.group = 2;
  expect_refused(attend(wrong), "[attention] kv group 2 of 2");
  Arrays b = a;
  b.blocks[7] = 3;
  expect_refused([&] { shapes::batch(b.batch(), kv); }, "[batch] block 3 of 3");
  b = a;
  b.slots[5] = 4;
  expect_refused([&] { shapes::batch(b.batch(), kv); },
                 "[batch] row 1: slot 4 is not where block 0 puts position 1");
  b = a;
  b.slots[5] = -1;
  expect_refused([&] { shapes::batch(b.batch(), kv); },
                 "[batch] row 1: padding in some kv groups only");
  shapes::copy_block(1, 2, 0, kv);
  expect_refused([&] { shapes::copy_block(1, 3, 0, kv); }, "[copy_block] block 3 of 3");
  expect_refused([&] { shapes::copy_block(2, 0, 0, kv); }, "[copy_block] kv group 2 of 2");
  shapes::kv_spec(kv.spec, kv.blocks);
  expect_refused([&] { shapes::kv_spec(kv.spec, std::span(kv.blocks).first(1)); },
                 "[create_kv] block counts; got 1, want 2");
  kv.spec.groups[1].layers = 0;
  expect_refused([&] { shapes::kv_spec(kv.spec, kv.blocks); }, "[create_kv] layers is 0");
}

TEST(Shapes, CheckARopeThatDependsOnTheLength) {
  Arrays a;
  Rope rope{.dims = 4, .inv_freq = {1, 2}, .trained = 8};
  const Attention spec{.heads = 4, .kv_heads = 2, .head_dim = 8, .rope = &rope};
  const auto attend = [&] { shapes::attention({4, 64}, spec, a.batch(), kKv, {}, {}); };
  expect_refused(attend, "[attention] long_inv_freq; got 0, want 2");
  rope.long_inv_freq = {3, 4};
  expect_refused(attend, "[attention] rope_len; got 0, want 4");
  a.rope_len = {9, 9, 9, 9};
  attend();
  rope = {.dims = 2, .inv_freq = {1}, .trained = 8, .theta = 100, .ntk_factor = 2};
  expect_refused(attend, "[attention] dynamic rope of 2 dims");
}

TEST(Shapes, NameTheWeightThatDoesNotFit) {
  expect_refused(
      [] {
        shapes::linear({2, 4096}, {{15360, 5120}, "blk.3.qkv"});
      },
      "[linear] blk.3.qkv takes 5120 columns, x has 4096");
  expect_refused([] { shapes::linear({2, 8}, {{1, 8}, "n"}); }, "[linear] n is a vector");
  expect_refused(
      [] {
        shapes::norm({2, 8}, {NormKind::kRms, {{1, 9}, "n"}});
      },
      "[norm] n is 1 x 9, want 1 x 8");
  expect_refused(
      [] {
        shapes::norm({2, 8}, {NormKind::kLayer, {{1, 8}, "n"}, {{1, 7}, "b"}});
      },
      "[norm] b is 1 x 7, want 1 x 8");
  expect_refused(
      [] {
        shapes::norm({2, 8}, {NormKind::kRms, {{1, 8}, "n"}, {{1, 8}, "b"}});
      },
      "[norm] b: RMS takes no bias");
  expect_refused([] { shapes::add({2, 8}, {3, 8}); }, "[add] x is 2 x 8, the sum is 3 x 8");
  expect_refused(
      [] {
        shapes::add_norm({2, 8}, {2, 9}, {NormKind::kRms, {{1, 8}, "n"}});
      },
      "[add_norm] x is 2 x 8, the sum is 2 x 9");
  expect_refused(
      [] {
        shapes::mlp({2, 8}, {{10, 8}, "up"}, {{8, 6}, "down"});
      },
      "[mlp] down takes 6 columns, up has 10 rows");
  expect_refused(
      [] {
        shapes::plain_mlp({2, 8}, {{10, 8}, "up"}, {{8, 5}, "down"});
      },
      "[plain_mlp] down takes 5 columns, up has 10 rows");
  Arrays a;
  a.tokens[2] = 50;
  expect_refused(
      [&] {
        shapes::embed(a.batch(), {{50, 8}, "table"});
      },
      "[embed] table has 50 rows, token is 50");
  a.tokens[2] = -1;
  expect_refused(
      [&] {
        shapes::embed(a.batch(), {{50, 8}, "table"});
      },
      "[embed] table has 50 rows, token is -1");
  Batch ahead = a.batch();
  ahead.rows_before = 1;
  EXPECT_EQ(shapes::embed(ahead, {{50, 8}, "table"}), (Shape{4, 8}));
  a.tokens[2] = -2;
  expect_refused(
      [&] {
        shapes::embed(ahead, {{50, 8}, "table"});
      },
      "[embed] table has 50 rows, token is -2");
  a.tokens[2] = 1;
  expect_refused(
      [&] {
        shapes::logits({3, 8}, a.batch(), {{50, 8}, "head"});
      },
      "[logits] rows of x; got 3, want 4");
}

TEST(Shapes, GiveTheResultsShape) {
  const Arrays a;
  EXPECT_EQ(shapes::embed(a.batch(), {{50, 8}, "t"}), (Shape{4, 8}));
  EXPECT_EQ(shapes::norm({4, 8}, {NormKind::kLayer, {{1, 8}, "n"}, {}}), (Shape{4, 8}));
  EXPECT_EQ(shapes::add({4, 8}, {4, 8}), (Shape{4, 8}));
  EXPECT_EQ(shapes::linear({4, 8}, {{5, 8}, "w"}), (Shape{4, 5}));
  EXPECT_EQ(shapes::mlp({4, 8}, {{12, 8}, "up"}, {{8, 6}, "down"}), (Shape{4, 8}));
  EXPECT_EQ(shapes::plain_mlp({4, 8}, {{6, 8}, "up"}, {{8, 6}, "down"}), (Shape{4, 8}));
  EXPECT_EQ(shapes::logits({4, 8}, a.batch(), {{50, 8}, "head"}), (Shape{2, 50}));
  const Attention spec{.heads = 4, .kv_heads = 2, .head_dim = 8};
  EXPECT_EQ(shapes::attention({4, 64}, spec, a.batch(), kKv, {}, {}), (Shape{4, 32}));
}

// Three experts of 6 on rows of 8, beside a shared one of 5.
struct Experts {
  Weight router{{}, {3, 8}}, shared_gate_up{{}, {10, 8}}, shared_down{{}, {8, 5}};
  Weight shared_gate{{}, {1, 8}};
  std::vector<Weight> gate_up{3, Weight{{}, {12, 8}}}, down{3, Weight{{}, {8, 6}}};
  int top_k = 2;
  Moe moe() const {
    return {.router = &router,
            .gate_up = gate_up,
            .down = down,
            .top_k = top_k,
            .shared_gate_up = &shared_gate_up,
            .shared_down = &shared_down,
            .shared_gate = &shared_gate};
  }
};

shapes::NamedShape named_w(const Weight& weight) { return {weight.shape, "w"}; }

TEST(Shapes, CheckExpertsAgainstTheirRouter) {
  Experts e;
  const auto refused = [&e](const std::string& text) {
    expect_refused([&] { shapes::moe({4, 8}, e.moe(), named_w); }, text);
    e = {};
  };
  EXPECT_EQ(shapes::moe({4, 8}, e.moe(), named_w), (Shape{4, 8}));
  e.router.shape = {3, 9};
  refused("[moe] w takes 9 columns, x has 8");
  e.router.shape = {4, 8};
  refused("[moe] gate_up; got 3, want 4");
  e.down.pop_back();
  refused("[moe] down; got 2, want 3");
  e.top_k = 4;
  refused("[moe] top 4 of 3 experts");
  e.top_k = 0;
  refused("[moe] top 0 of 3 experts");
  e.gate_up[1].shape = {11, 8};
  refused("[moe] w takes 6 columns, w has 11 rows");
  e.gate_up[2].shape = {10, 8};
  e.down[2].shape = {8, 5};
  refused("[moe] w is 8 x 5, want 8 x 6");
  e.shared_down.shape = {9, 5};
  refused("[moe] w; got 9, want 8");
  e.shared_gate.shape = {1, 9};
  refused("[moe] w is 1 x 9, want 1 x 8");
  Moe half = e.moe();
  half.shared_gate_up = nullptr;
  expect_refused(
      [&] {
        shapes::moe({4, 8}, half, named_w);
      },
      "[moe] parts of a shared expert are missing");
  half = e.moe();
  half.router = nullptr;
  expect_refused([&] { shapes::moe({4, 8}, half, named_w); }, "[moe] no router");
}

TEST(Shapes, CheckAttentionAgainstTheKvBlocks) {
  Arrays a;
  const auto attend = [&](const Attention& spec, int32_t cols) {
    shapes::attention({4, cols}, spec, a.batch(), kKv, {}, {});
  };
  expect_refused([&] { attend({.layer = 2, .heads = 4, .kv_heads = 2, .head_dim = 8}, 64); },
                 "[attention] layer 2 of 2");
  expect_refused([&] { attend({.heads = 3, .kv_heads = 2, .head_dim = 8}, 56); },
                 "[attention] 3 heads do not share 2 kv heads");
  expect_refused([&] { attend({.heads = 4, .kv_heads = 2, .head_dim = 8}, 63); },
                 "[attention] columns of qkv; got 63, want 64");
  const Rope rope{.dims = 6, .inv_freq = {1}};
  expect_refused([&] { attend({.heads = 4, .kv_heads = 2, .head_dim = 8, .rope = &rope}, 64); },
                 "[attention] inv_freq; got 1, want 3");
  const Norm norm{};
  const Attention normed{.heads = 4, .kv_heads = 2, .head_dim = 8, .k_norm = &norm};
  expect_refused(
      [&] {
        shapes::attention({4, 64}, normed, a.batch(), kKv, {}, {NormKind::kRms, {{1, 64}, "k"}});
      },
      "[attention] k is 1 x 64, want 1 x 8");
  a.blocks[3] = -1;
  expect_refused([&] { attend({.heads = 4, .kv_heads = 2, .head_dim = 8}, 64); },
                 "[attention] sequence 1 has no block for tokens from 0");
  attend({.heads = 4, .kv_heads = 2, .head_dim = 8, .window = 2}, 64);
}

TEST(Shapes, CheckWhatIsPacked) {
  const std::vector<std::byte> bytes(64);
  const auto tensor = [&](const char* name, Shape shape, size_t size) {
    return RawTensor{name, DType::kF16, shape, std::span(bytes).first(size)};
  };
  const std::vector<RawTensor> parts = {tensor("q", {3, 4}, 24), tensor("k", {2, 4}, 16)};
  const std::vector<RawTensor> bias = {tensor("q.b", {1, 3}, 6), tensor("k.b", {1, 2}, 4)};
  EXPECT_EQ(shapes::packed(parts, bias), (Shape{5, 4}));
  EXPECT_EQ(shapes::packed_name(parts), "q+k");
  const std::vector<RawTensor> odd = {parts[0], tensor("k", {2, 5}, 20)};
  expect_refused([&] { shapes::packed(odd, {}); }, "[pack] k columns; got 5, want 4");
  const std::vector<RawTensor> cut = {tensor("q", {3, 4}, 23)};
  expect_refused([&] { shapes::packed(cut, {}); }, "[pack] q bytes; got 23, want 24");
  expect_refused([&] { shapes::packed(parts, std::span(bias).first(1)); },
                 "[pack] bias vectors; got 1, want 2");
  const std::vector<RawTensor> swapped = {bias[1], bias[0]};
  expect_refused([&] { shapes::packed(parts, swapped); }, "[pack] k.b is 1 x 2, want 1 x 3");
}

}  // namespace
}  // namespace llorch
