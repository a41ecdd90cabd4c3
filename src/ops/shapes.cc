// Argument checks shared by all backends. Knows no device and reads no tensor's values.
#include "ops/shapes.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch::shapes {
namespace {

[[noreturn]] void fail(std::string_view op, const std::string& what) {
  throw Error(ErrorCode::kInternal, "[" + std::string(op) + "] " + what);
}

std::string text(int64_t value) { return std::to_string(value); }
std::string text(Shape shape) { return text(shape.rows) + " x " + text(shape.cols); }

void want(bool good, std::string_view op, std::string_view what, int64_t got, int64_t wanted) {
  if (!good) fail(op, std::string(what) + "; got " + text(got) + ", want " + text(wanted));
}

int64_t tokens(const Batch& batch) { return static_cast<int64_t>(batch.tokens.size()); }
int64_t sequences(const Batch& batch) { return static_cast<int64_t>(batch.kv_len.size()); }

void rows_of_step(std::string_view op, Shape x, const Batch& batch) {
  want(x.rows == tokens(batch), op, "rows of x", x.rows, tokens(batch));
}

void matrix(std::string_view op, NamedShape weight) {
  if (weight.shape.rows == 1) fail(op, std::string(weight.name) + " is a vector");
}

void columns(std::string_view op, NamedShape weight, Shape x) {
  matrix(op, weight);
  if (weight.shape.cols != x.cols) {
    fail(op, std::string(weight.name) + " takes " + text(weight.shape.cols) + " columns, x has " +
                 text(x.cols));
  }
}

void vector_of(std::string_view op, NamedShape gain, int32_t size) {
  if (gain.shape != Shape{1, size}) {
    fail(op, std::string(gain.name) + " is " + text(gain.shape) + ", want " + text(Shape{1, size}));
  }
}

void check_norm(std::string_view op, const NamedNorm& norm, int32_t size) {
  vector_of(op, norm.gain, size);
  if (norm.bias.shape.rows == 0) return;
  vector_of(op, norm.bias, size);
  if (norm.kind == NormKind::kRms) fail(op, std::string(norm.bias.name) + ": RMS takes no bias");
}

void check_sum(std::string_view op, Shape x, Shape sum) {
  if (x != sum) fail(op, "x is " + text(x) + ", the sum is " + text(sum));
}

// `up` stacks `stack` matrices that are as high as `down` is wide.
Shape two_products(std::string_view op, Shape x, NamedShape up, NamedShape down, int32_t stack) {
  columns(op, up, x);
  matrix(op, down);
  if (up.shape.rows != int64_t{stack} * down.shape.cols) {
    fail(op, std::string(down.name) + " takes " + text(down.shape.cols) + " columns, " +
                 std::string(up.name) + " has " + text(up.shape.rows) + " rows");
  }
  return {x.rows, down.shape.rows};
}

void check_query_start(const Batch& batch) {
  const int64_t last = tokens(batch);
  want(batch.query_start.front() == 0, "batch", "query_start[0]", batch.query_start.front(), 0);
  want(batch.query_start.back() == last, "batch", "last of query_start", batch.query_start.back(),
       last);
  if (!std::is_sorted(batch.query_start.begin(), batch.query_start.end())) {
    fail("batch", "query_start is not ascending");
  }
}

void check_logit_rows(const Batch& batch) {
  int32_t before = -1;
  for (const int32_t row : batch.logit_rows) {
    if (row <= before) fail("batch", "logit_rows are not ascending at row " + text(row));
    if (row >= tokens(batch)) {
      fail("batch", "logit row " + text(row) + " of " + text(tokens(batch)) + " rows");
    }
    before = row;
  }
}

void check_row(const Batch& batch, const KvLimits& kv, size_t group, size_t sequence, size_t row) {
  const int32_t slot = batch.slots_of(group)[row];
  const auto where = [&] { return "row " + text(static_cast<int64_t>(row)) + ": "; };
  if ((slot == -1) != (batch.slots[row] == -1)) {
    fail("batch", where() + "padding in some kv groups only");
  }
  if (slot == -1) return;
  const int32_t position = batch.positions[row];
  if (position < 0 || position >= batch.kv_len[sequence]) {
    fail("batch",
         where() + "position " + text(position) + " of kv_len " + text(batch.kv_len[sequence]));
  }
  const int32_t per_block = kv.spec.block_tokens;
  if (position / per_block >= batch.blocks_per_sequence) {
    fail("batch", where() + "position " + text(position) + " is past the block table");
  }
  const int32_t block = batch.table(group, sequence)[static_cast<size_t>(position / per_block)];
  if (block < 0 || slot != int64_t{block} * per_block + position % per_block) {
    fail("batch", where() + "slot " + text(slot) + " is not where block " + text(block) +
                      " puts position " + text(position));
  }
}

void check_group(const Batch& batch, const KvLimits& kv, size_t group) {
  for (size_t s = 0; s < batch.kv_len.size(); ++s) {
    for (const int32_t block : batch.table(group, s)) {
      if (block < -1 || block >= kv.blocks[group]) {
        fail("batch", "block " + text(block) + " of " + text(kv.blocks[group]));
      }
    }
    for (auto row = static_cast<size_t>(batch.query_start[s]);
         row < static_cast<size_t>(batch.query_start[s + 1]); ++row) {
      check_row(batch, kv, group, s, row);
    }
  }
}

void check_visible(const Attention& a, const Batch& batch, const KvLimits& kv, size_t sequence) {
  int32_t first = std::numeric_limits<int32_t>::max(), last = -1;
  for (auto row = static_cast<size_t>(batch.query_start[sequence]);
       row < static_cast<size_t>(batch.query_start[sequence + 1]); ++row) {
    if (batch.slots[row] == -1) continue;
    const int32_t position = batch.positions[row];
    first = std::min(first, a.window > 0 ? std::max(0, position - a.window + 1) : 0);
    last = std::max(last, position);
  }
  if (last < 0) return;
  const auto table = batch.table(static_cast<size_t>(a.group), sequence);
  const int32_t per_block = kv.spec.block_tokens;
  for (int32_t i = first / per_block; i <= last / per_block; ++i) {
    if (table[static_cast<size_t>(i)] < 0) {
      fail("attention", "sequence " + text(static_cast<int64_t>(sequence)) +
                            " has no block for tokens from " + text(int64_t{i} * per_block));
    }
  }
}

void check_rope(const Rope& rope, const Attention& a, const Batch& batch) {
  const std::string_view op = "attention";
  if (rope.dims < 0 || rope.dims % 2 != 0 || rope.dims > a.head_dim) {
    fail(op, "rope of " + text(rope.dims) + " of " + text(a.head_dim) + " dims");
  }
  const auto pairs = [&](const char* what, const std::vector<float>& frequencies) {
    const auto got = static_cast<int64_t>(frequencies.size());
    want(got == rope.dims / 2, op, what, got, rope.dims / 2);
  };
  pairs("inv_freq", rope.inv_freq);
  if (rope.trained == 0) return;
  if (rope.ntk_factor == 0) {
    pairs("long_inv_freq", rope.long_inv_freq);
  } else if (rope.dims <= 2) {
    fail(op, "dynamic rope of " + text(rope.dims) + " dims");
  }
  want(batch.rope_len.size() == batch.tokens.size(), op, "rope_len",
       static_cast<int64_t>(batch.rope_len.size()), tokens(batch));
}

void check_attention(const Attention& a, const Batch& batch, const KvSpec& kv,
                     const NamedNorm& q_norm, const NamedNorm& k_norm) {
  const std::string_view op = "attention";
  if (a.heads < 1 || a.kv_heads < 1 || a.heads % a.kv_heads != 0) {
    fail(op, text(a.heads) + " heads do not share " + text(a.kv_heads) + " kv heads");
  }
  want(a.kv_heads == kv.kv_heads, op, "kv heads", a.kv_heads, kv.kv_heads);
  want(a.head_dim == kv.head_dim, op, "head dim", a.head_dim, kv.head_dim);
  if (a.group < 0 || static_cast<size_t>(a.group) >= kv.groups.size()) {
    fail(op, "kv group " + text(a.group) + " of " + text(static_cast<int64_t>(kv.groups.size())));
  }
  const KvGroup& group = kv.groups[static_cast<size_t>(a.group)];
  if (a.layer < 0 || a.layer >= group.layers) {
    fail(op, "layer " + text(a.layer) + " of " + text(group.layers));
  }
  if (a.window < 0) fail(op, "negative window " + text(a.window));
  if (a.q_norm) check_norm(op, q_norm, a.head_dim);
  if (a.k_norm) check_norm(op, k_norm, a.head_dim);
  if (a.rope) check_rope(*a.rope, a, batch);
}

Shape attention_result(Shape qkv, const Attention& a, const Batch& batch) {
  rows_of_step("attention", qkv, batch);
  const int64_t wanted = (int64_t{a.heads} + 2 * int64_t{a.kv_heads}) * a.head_dim;
  want(qkv.cols == wanted, "attention", "columns of qkv", qkv.cols, wanted);
  return {qkv.rows, a.heads * a.head_dim};
}

}  // namespace

void batch_to_measure(const Batch& batch, const KvSpec& kv) {
  const int64_t rows = tokens(batch);
  const auto groups = static_cast<int64_t>(kv.groups.size());
  want(rows >= 1, "batch", "tokens", rows, 1);
  want(rows <= std::numeric_limits<int32_t>::max(), "batch", "tokens", rows,
       std::numeric_limits<int32_t>::max());
  const auto size = [](auto span) { return static_cast<int64_t>(span.size()); };
  want(size(batch.positions) == rows, "batch", "positions", size(batch.positions), rows);
  want(size(batch.slots) == groups * rows, "batch", "slots", size(batch.slots), groups * rows);
  want(size(batch.query_start) == sequences(batch) + 1, "batch", "query_start",
       size(batch.query_start), sequences(batch) + 1);
  want(batch.blocks_per_sequence >= 0, "batch", "blocks_per_sequence", batch.blocks_per_sequence,
       0);
  const int64_t entries = groups * sequences(batch) * batch.blocks_per_sequence;
  want(size(batch.blocks) == entries, "batch", "blocks", size(batch.blocks), entries);
  if (!batch.rope_len.empty()) {
    want(size(batch.rope_len) == rows, "batch", "rope_len", size(batch.rope_len), rows);
  }
  check_query_start(batch);
  check_logit_rows(batch);
}

void batch(const Batch& batch, const KvLimits& kv) {
  batch_to_measure(batch, kv.spec);
  for (size_t group = 0; group < kv.blocks.size(); ++group) check_group(batch, kv, group);
}

Shape embed(const Batch& batch, NamedShape table) {
  matrix("embed", table);
  for (const int32_t token : batch.tokens) {
    if (token < -batch.rows_before || token >= table.shape.rows) {
      fail("embed", std::string(table.name) + " has " + text(table.shape.rows) +
                        " rows, token is " + text(token));
    }
  }
  return {static_cast<int32_t>(tokens(batch)), table.shape.cols};
}

Shape norm(Shape x, const NamedNorm& norm) {
  check_norm("norm", norm, x.cols);
  return x;
}

Shape add_norm(Shape x, Shape sum, const NamedNorm& norm) {
  check_sum("add_norm", x, sum);
  check_norm("add_norm", norm, x.cols);
  return x;
}

Shape add(Shape x, Shape sum) {
  check_sum("add", x, sum);
  return x;
}

Shape linear(Shape x, NamedShape weight) {
  columns("linear", weight, x);
  return {x.rows, weight.shape.rows};
}

Shape mlp(Shape x, NamedShape gate_up, NamedShape down) {
  return two_products("mlp", x, gate_up, down, 2);
}

Shape plain_mlp(Shape x, NamedShape up, NamedShape down) {
  return two_products("plain_mlp", x, up, down, 1);
}

Shape moe(Shape x, const Moe& moe, NamedShape (*named)(const Weight&)) {
  const std::string_view op = "moe";
  const auto expert = [&](const Weight& gate_up, const Weight& down) {
    const Shape result = two_products(op, x, named(gate_up), named(down), 2);
    want(result == x, op, named(down).name, result.cols, x.cols);
  };
  if (!moe.router) fail(op, "no router");
  columns(op, named(*moe.router), x);
  const int64_t experts = moe.router->shape.rows;
  const auto gate_ups = static_cast<int64_t>(moe.gate_up.size());
  const auto downs = static_cast<int64_t>(moe.down.size());
  want(gate_ups == experts, op, "gate_up", gate_ups, experts);
  want(downs == experts, op, "down", downs, experts);
  if (moe.top_k < 1 || moe.top_k > experts) {
    fail(op, "top " + text(moe.top_k) + " of " + text(experts) + " experts");
  }
  for (size_t i = 0; i < moe.down.size(); ++i) {
    expert(moe.gate_up[i], moe.down[i]);
    // One scratch serves all of them.
    if (moe.down[i].shape != moe.down[0].shape) {
      fail(op, std::string(named(moe.down[i]).name) + " is " + text(moe.down[i].shape) + ", want " +
                   text(moe.down[0].shape));
    }
  }
  if (!moe.shared_gate_up != !moe.shared_down || (moe.shared_gate && !moe.shared_down)) {
    fail(op, "parts of a shared expert are missing");
  }
  if (moe.shared_down) expert(*moe.shared_gate_up, *moe.shared_down);
  if (moe.shared_gate) vector_of(op, named(*moe.shared_gate), x.cols);
  return x;
}

Shape logits(Shape x, const Batch& batch, NamedShape head) {
  rows_of_step("logits", x, batch);
  columns("logits", head, x);
  return {static_cast<int32_t>(batch.logit_rows.size()), head.shape.rows};
}

Shape attention(Shape qkv, const Attention& a, const Batch& batch, const KvLimits& kv,
                const NamedNorm& q_norm, const NamedNorm& k_norm) {
  check_attention(a, batch, kv.spec, q_norm, k_norm);
  for (size_t s = 0; s < batch.kv_len.size(); ++s) check_visible(a, batch, kv, s);
  return attention_result(qkv, a, batch);
}

Shape attention_to_measure(Shape qkv, const Attention& a, const Batch& batch, const KvSpec& kv,
                           const NamedNorm& q_norm, const NamedNorm& k_norm) {
  check_attention(a, batch, kv, q_norm, k_norm);
  return attention_result(qkv, a, batch);
}

std::string packed_name(std::span<const RawTensor> parts) {
  std::string names;
  for (const RawTensor& part : parts) names += (names.empty() ? "" : "+") + part.name;
  return names;
}

Shape packed(std::span<const RawTensor> parts, std::span<const RawTensor> bias) {
  if (parts.empty()) fail("pack", "no parts");
  const auto bytes = [](const RawTensor& part) {
    if (part.shape.rows < 1 || part.shape.cols < 1) {
      fail("pack", part.name + " is " + text(part.shape));
    }
    const int32_t block = block_layout(part.type).values;
    if (part.shape.cols % block != 0) {
      fail("pack", part.name + " columns; got " + text(part.shape.cols) +
                       ", want whole blocks of " + text(block));
    }
    const uint64_t wanted = uint64_t(part.shape.rows) * row_bytes(part.type, part.shape.cols);
    if (part.bytes.size() != wanted) {
      fail("pack", part.name + " bytes; got " + text(static_cast<int64_t>(part.bytes.size())) +
                       ", want " + text(static_cast<int64_t>(wanted)));
    }
  };
  int64_t rows = 0;
  for (const RawTensor& part : parts) {
    bytes(part);
    if (part.shape.cols != parts[0].shape.cols) {
      fail("pack", part.name + " columns; got " + text(part.shape.cols) + ", want " +
                       text(parts[0].shape.cols));
    }
    rows += part.shape.rows;
  }
  want(rows <= std::numeric_limits<int32_t>::max(), "pack", "rows", rows,
       std::numeric_limits<int32_t>::max());
  if (rows == 1 && is_quantised(parts[0].type)) fail("pack", parts[0].name + " is quantised");
  if (bias.empty()) return {static_cast<int32_t>(rows), parts[0].shape.cols};
  want(bias.size() == parts.size(), "pack", "bias vectors", static_cast<int64_t>(bias.size()),
       static_cast<int64_t>(parts.size()));
  for (size_t i = 0; i < bias.size(); ++i) {
    bytes(bias[i]);
    if (is_quantised(bias[i].type)) fail("pack", bias[i].name + " is quantised");
    vector_of("pack", {bias[i].shape, bias[i].name}, parts[i].shape.rows);
  }
  return {static_cast<int32_t>(rows), parts[0].shape.cols};
}

void kv_spec(const KvSpec& spec, std::span<const int32_t> blocks) {
  const auto positive = [](std::string_view what, int64_t value) {
    if (value < 1) fail("create_kv", std::string(what) + " is " + text(value));
  };
  positive("kv groups", static_cast<int64_t>(spec.groups.size()));
  positive("kv_heads", spec.kv_heads);
  positive("head_dim", spec.head_dim);
  positive("block_tokens", spec.block_tokens);
  if (is_quantised(spec.type) && spec.type != DType::kQ8_0 && spec.type != DType::kF8E4M3) {
    fail("create_kv", std::string("there is no kv cache in ") + name(spec.type));
  }
  want(blocks.size() == spec.groups.size(), "create_kv", "block counts",
       static_cast<int64_t>(blocks.size()), static_cast<int64_t>(spec.groups.size()));
  for (size_t i = 0; i < blocks.size(); ++i) {
    positive("layers", spec.groups[i].layers);
    positive("blocks", blocks[i]);
    // Slots are 32 bits wide.
    positive("slots left",
             int64_t{std::numeric_limits<int32_t>::max()} - int64_t{blocks[i]} * spec.block_tokens);
  }
}

void copy_block(size_t group, int32_t from, int32_t to, const KvLimits& kv) {
  if (group >= kv.blocks.size()) {
    fail("copy_block", "kv group " + text(static_cast<int64_t>(group)) + " of " +
                           text(static_cast<int64_t>(kv.blocks.size())));
  }
  for (const int32_t block : {from, to}) {
    if (block < 0 || block >= kv.blocks[group]) {
      fail("copy_block", "block " + text(block) + " of " + text(kv.blocks[group]));
    }
  }
}

void sampling(const Batch& batch, std::span<const Sampling> sampling) {
  want(sampling.size() == batch.logit_rows.size(), "submit", "sampling entries",
       static_cast<int64_t>(sampling.size()), static_cast<int64_t>(batch.logit_rows.size()));
}

void result(Shape result, const Batch& batch) {
  want(result.rows == static_cast<int64_t>(batch.logit_rows.size()), "submit", "rows of the result",
       result.rows, static_cast<int64_t>(batch.logit_rows.size()));
}

}  // namespace llorch::shapes
