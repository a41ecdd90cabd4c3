// The ops on the CPU: checks, then kernels over the thread pool. Knows no model and no sampling.
#include <cmath>

#include "backends/cpu/cpu_state.h"
#include "base/error.h"
#include "ops/dtype.h"
#include "ops/rope_frequencies.h"

namespace llorch {
namespace {

shapes::NamedShape named(const Weight* weight) {
  return weight ? named(*weight) : shapes::NamedShape{};
}

shapes::NamedNorm named(const Norm& norm) {
  return {norm.kind, named(norm.gain), named(norm.bias)};
}

shapes::NamedNorm named(const Norm* norm) { return norm ? named(*norm) : shapes::NamedNorm{}; }

const float* vector_of(const Weight* weight) {
  return weight ? weight->impl->packed.vector() : nullptr;
}

cpu::RowNorm vectors_of(const Norm* norm) {
  if (norm == nullptr) return {};
  return {vector_of(norm->gain), vector_of(norm->bias), norm->eps, norm->kind == NormKind::kLayer};
}

size_t index_of(DType type) { return static_cast<size_t>(type); }

}  // namespace

// The kernels' tables are indexed by it.
static_assert(static_cast<int>(Act::kSilu) == 0 && static_cast<int>(Act::kGeluTanh) == 1 &&
              static_cast<int>(Act::kGelu) == 2);
static_assert(
    static_cast<int>(DType::kF32) == cpu::kF32 && static_cast<int>(DType::kF16) == cpu::kF16 &&
    static_cast<int>(DType::kBF16) == cpu::kBF16 && static_cast<int>(DType::kQ8_0) == cpu::kQ8_0 &&
    static_cast<int>(DType::kQ4_0) == cpu::kQ4_0 && static_cast<int>(DType::kQ4_K) == cpu::kQ4_K &&
    static_cast<int>(DType::kQ5_K) == cpu::kQ5_K && static_cast<int>(DType::kQ6_K) == cpu::kQ6_K &&
    static_cast<int>(DType::kIQ4_NL) == cpu::kIQ4_NL);

Tensor Ops::Step::make(Shape shape) {
  auto impl = std::make_shared<Tensor::Impl>();
  impl->offset = cpu.arena.take((static_cast<uint64_t>(shape.cols) * sizeof(float) + 63) / 64);
  impl->arena = &cpu.arena;
  if (!measuring) {
    impl->data = cpu.arena_memory.as<float>() + impl->offset * 16 * static_cast<uint64_t>(rows());
  }
  return {std::move(impl), shape, DType::kF32};
}

void Ops::Step::point_rows(const float* x, int64_t x_stride, int32_t m) {
  for (int32_t i = 0; i < m; ++i) cpu.row_pointers[static_cast<size_t>(i)] = x + i * x_stride;
}

const uint16_t* cpu::State::split_rows(int32_t m, int32_t cols) {
  for_rows(m, int64_t{cols} * kSplits, [&](int32_t first, int32_t last, int) {
    for (int32_t i = first; i < last; ++i) {
      kernels.split_row(row_pointers[static_cast<size_t>(i)], i, cols, split.as<uint16_t>());
    }
  });
  return split.as<uint16_t>();
}

cpu::QuantisedRows cpu::State::quantise_rows(int32_t m, int32_t cols) {
  const QuantisedRows rows{quantised_values.as<int8_t>(), quantised_blocks.as<QuantisedBlock>(),
                           cols / kBlockColumns, std::min(m, kRowTile)};
  for_rows(m, cols, [&](int32_t first, int32_t last, int) {
    for (int32_t i = first; i < last; ++i) {
      kernels.quantise_row(row_pointers[static_cast<size_t>(i)], i, cols, rows);
    }
  });
  return rows;
}

void Ops::Step::multiply(const float* x, int64_t x_stride, int32_t m, const Weight& w, float* out) {
  point_rows(x, x_stride, m);
  multiply_pointed(m, w, out, 0);
}

void Ops::Step::mlp_pointed(int32_t m, const Weight& up, const Weight& down, Act act, bool gated,
                            float* hidden, float* out) {
  const int32_t width = down.shape.cols;
  const int64_t stride = up.shape.rows;
  multiply_pointed(m, up, hidden, 0);
  const auto activate = cpu.kernels.activate[static_cast<size_t>(act)];
  cpu.for_rows(m, stride, [&](int32_t first, int32_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      float* values = hidden + row * stride;
      activate(values, gated ? values + width : nullptr, width);
    }
  });
  multiply(hidden, stride, m, down, out);
}

void Ops::Step::multiply_pointed(int32_t m, const Weight& w, float* out, float softcap) {
  if (m == 0) return;
  const auto& parts = w.impl->packed.rows;
  const auto any = [&](auto&& test) { return std::ranges::any_of(parts, test); };
  const auto is_split = [&](const cpu::PackedRows& part) {
    return part.type == DType::kBF16 && cpu.kernels.split_row;
  };
  cpu::Matmul args{cpu.row_pointers.data(), out, w.shape.rows, m, softcap, {}, nullptr, {}};
  if (any(is_split)) args.split = cpu.split_rows(m, w.shape.cols);
  if (any([](const cpu::PackedRows& part) { return is_quantised(part.type); })) {
    args.quantised = cpu.quantise_rows(m, w.shape.cols);
  }
  for (const cpu::PackedRows& part : parts) {
    args.w = part.view;
    args.out = out + part.first_row;
    multiply_panels(args, cpu.kernels.matmul[index_of(part.type)]);
  }
}

void Ops::Step::multiply_panels(const cpu::Matmul& args, cpu::MatmulKernel kernel) {
  const int32_t panels = (args.w.rows - 1) / cpu.kernels.panel_rows + 1;
  // A task reads some 128 KB of weights, or computes about as long as that takes.
  constexpr int64_t kTaskBytes = 128 << 10;
  const int64_t work = args.w.panel_bytes * (1 + (args.m - 1) / 4);
  const auto together =
      static_cast<int32_t>(std::clamp<int64_t>(kTaskBytes / work, 2, cpu::kBlockPanels));
  const int32_t spread = (panels - 1) / (2 * cpu.pool.threads()) + 1;
  // Many rows want many panels, which share a block of activations, but work for every thread too.
  const int32_t per_task = args.m > cpu::kFewRows ? std::min(cpu::kBlockPanels, spread) : together;
  cpu.pool.parallel_for((panels - 1) / per_task + 1, [&](int task, int thread) {
    const int32_t first = task * per_task;
    kernel(args, first, std::min(first + per_task, panels), cpu.scratch_of(thread));
  });
}

void Ops::Step::use_rope(const Rope& rope, cpu::Attend* args) {
  const auto& known = cpu.needs.ropes;
  const auto found = std::find(known.begin(), known.end(), &rope);
  if (found == known.end()) {
    throw Error(ErrorCode::kInternal, "[attention] this rope was not used in prepare()");
  }
  const auto index = static_cast<size_t>(found - known.begin());
  const auto half = static_cast<size_t>(rope.dims / 2);
  float* cosines = cpu.rope_table(index);
  float* sines = cosines + static_cast<size_t>(cpu.needs.rows) * half;
  args->rope_dims = rope.dims;
  args->interleaved = rope.interleaved;
  args->cosines = cosines;
  args->sines = sines;
  if (rope_done[index]) return;
  rope_done[index] = true;
  // As transformers does it: the angle is a float product.
  cpu.for_rows(rows(), rope.dims * int64_t{8}, [&](int32_t first, int32_t last, int thread) {
    std::span<const float> frequencies;
    int32_t length = -1;
    for (auto row = static_cast<size_t>(first); row < static_cast<size_t>(last); ++row) {
      const int32_t wanted = rope.trained == 0 ? 0 : batch.rope_len[row];
      if (wanted != length) {
        frequencies = rope_frequencies(rope, wanted, {cpu.scratch_of(thread), half});
        length = wanted;
      }
      const auto position = static_cast<float>(batch.positions[row]);
      for (size_t i = 0; i < half; ++i) {
        const float angle = position * frequencies[i];
        cosines[row * half + i] = std::cos(angle) * rope.factor;
        sines[row * half + i] = std::sin(angle) * rope.factor;
      }
    }
  });
}

void Ops::Step::make_tiles(int32_t rows_per_tile) {
  if (tile_rows == rows_per_tile) return;
  tile_rows = rows_per_tile;
  cpu.tiles.clear();
  for (size_t s = 0; s < batch.kv_len.size(); ++s) {
    const int32_t end = batch.query_start[s + 1];
    for (int32_t row = batch.query_start[s]; row < end; row += rows_per_tile) {
      cpu.tiles.push_back({static_cast<int32_t>(s), row, std::min(rows_per_tile, end - row)});
    }
  }
}

Tensor Ops::Step::mlp(const Tensor& x, const Weight& up, const Weight& down, Act act, bool gated,
                      Shape shape) {
  const Tensor hidden = make({x.shape.rows, up.shape.rows});
  Tensor out = make(shape);
  if (measuring) return out;
  point_rows(x.impl->data, x.shape.cols, x.shape.rows);
  mlp_pointed(x.shape.rows, up, down, act, gated, hidden.impl->data, out.impl->data);
  return out;
}

Tensor Ops::embed(const Weight& table, float scale) {
  Tensor out = step->make(shapes::embed(step->batch, named(table)));
  if (step->measuring) return out;
  auto& cpu = step->cpu;
  const int64_t cols = table.shape.cols;
  cpu.for_rows(step->rows(), cols * 4, [&](int32_t first, int32_t last, int) {
    for (int32_t row = first; row < last; ++row) {
      const int32_t token = step->batch.tokens[static_cast<size_t>(row)];
      const cpu::PackedRows& part = table.impl->packed.holding(token);
      cpu.kernels.embed[index_of(part.type)](part.view, token - part.first_row, scale,
                                             out.impl->data + row * cols);
    }
  });
  return out;
}

Tensor Ops::norm(const Tensor& x, const Norm& n) {
  Tensor out = step->make(shapes::norm(x.shape, named(n)));
  if (step->measuring) return out;
  const int32_t cols = x.shape.cols;
  const cpu::RowNorm vectors = vectors_of(&n);
  step->cpu.for_rows(x.shape.rows, cols, [&](int32_t first, int32_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      step->cpu.kernels.norm(x.impl->data + row * cols, vectors, cols, out.impl->data + row * cols);
    }
  });
  return out;
}

Tensor Ops::add_norm(const Tensor& x, Tensor* sum, const Norm& n) {
  const Shape shape = shapes::add_norm(x.shape, sum->shape, named(n));
  Tensor total = step->make(shape), out = step->make(shape);
  if (!step->measuring) {
    const int32_t cols = shape.cols;
    const cpu::RowNorm vectors = vectors_of(&n);
    step->cpu.for_rows(shape.rows, cols * int64_t{2}, [&](int32_t first, int32_t last, int) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * cols;
        step->cpu.kernels.add(x.impl->data + at, sum->impl->data + at, cols, total.impl->data + at);
        step->cpu.kernels.norm(total.impl->data + at, vectors, cols, out.impl->data + at);
      }
    });
  }
  *sum = std::move(total);
  return out;
}

void Ops::add(const Tensor& x, Tensor* sum) {
  const Shape shape = shapes::add(x.shape, sum->shape);
  Tensor total = step->make(shape);
  if (!step->measuring) {
    const int32_t cols = shape.cols;
    step->cpu.for_rows(shape.rows, cols, [&](int32_t first, int32_t last, int) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * cols;
        step->cpu.kernels.add(x.impl->data + at, sum->impl->data + at, cols, total.impl->data + at);
      }
    });
  }
  *sum = std::move(total);
}

Tensor Ops::linear(const Tensor& x, const Weight& w) {
  Tensor out = step->make(shapes::linear(x.shape, named(w)));
  if (!step->measuring) step->multiply(x.impl->data, x.shape.cols, x.shape.rows, w, out.impl->data);
  return out;
}

Tensor Ops::mlp(const Tensor& x, const Weight& gate_up, const Weight& down, Act act) {
  return step->mlp(x, gate_up, down, act, true, shapes::mlp(x.shape, named(gate_up), named(down)));
}

Tensor Ops::plain_mlp(const Tensor& x, const Weight& up, const Weight& down, Act act) {
  return step->mlp(x, up, down, act, false, shapes::plain_mlp(x.shape, named(up), named(down)));
}

Tensor Ops::attention(const Tensor& qkv, const Attention& a) {
  auto& cpu = step->cpu;
  const auto& limits = cpu.kv.limits;
  const Shape shape =
      step->measuring
          ? shapes::attention_to_measure(qkv.shape, a, step->batch, limits.spec, named(a.q_norm),
                                         named(a.k_norm))
          : shapes::attention(qkv.shape, a, step->batch, limits, named(a.q_norm), named(a.k_norm));
  const int32_t group = a.heads / a.kv_heads;
  const int32_t tile_rows = std::max(1, cpu::kTileQueries / group);
  Tensor out = step->make(shape);
  if (step->measuring) {
    cpu.needs.queries = std::max(cpu.needs.queries, group * tile_rows);
    cpu.needs.kv_row = std::max(cpu.needs.kv_row, cpu::KvPool::row_of(limits.spec));
    auto& ropes = cpu.needs.ropes;
    if (a.rope) cpu.needs.rope_pairs = std::max(cpu.needs.rope_pairs, a.rope->dims / 2);
    if (a.rope && std::find(ropes.begin(), ropes.end(), a.rope) == ropes.end()) {
      ropes.push_back(a.rope);
    }
    return out;
  }
  if (group * tile_rows > cpu.needs.queries) {
    throw Error(ErrorCode::kInternal, "[attention] more heads than prepare() saw");
  }
  cpu::Attend args{};
  args.qkv = qkv.impl->data;
  args.out = out.impl->data;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.window = a.window;
  args.scale = a.scale;
  args.softcap = a.softcap;
  args.q_norm = vectors_of(a.q_norm);
  args.k_norm = vectors_of(a.k_norm);
  const auto kv_group = static_cast<size_t>(a.group);
  args.kv = cpu.kv.layer(kv_group, a.layer);
  args.positions = step->batch.positions.data();
  args.slots = step->batch.slots_of(kv_group).data();
  if (a.rope && a.rope->dims > 0) step->use_rope(*a.rope, &args);
  const size_t type = index_of(limits.spec.type);
  cpu.for_rows(step->rows(), int64_t{2} * a.kv_heads * a.head_dim,
               [&](int32_t first, int32_t last, int thread) {
                 cpu.kernels.write_kv[type](args, first, last, cpu.scratch_of(thread));
               });
  step->make_tiles(tile_rows);
  const auto tasks = static_cast<int>(cpu.tiles.size()) * a.kv_heads;
  cpu.pool.parallel_for(tasks, [&](int task, int thread) {
    const cpu::RowTile& tile = cpu.tiles[static_cast<size_t>(task / a.kv_heads)];
    const int32_t* blocks = step->batch.table(kv_group, static_cast<size_t>(tile.sequence)).data();
    cpu.kernels.attend[type](args, {blocks, tile.first_row, tile.rows, task % a.kv_heads},
                             cpu.scratch_of(thread));
  });
  return out;
}

Tensor Ops::logits(const Tensor& x, const Weight& head, float softcap) {
  const Shape shape = shapes::logits(x.shape, step->batch, named(head));
  auto& cpu = step->cpu;
  Tensor out{std::make_shared<Tensor::Impl>(), shape, DType::kF32};
  if (step->measuring) {
    cpu.needs.vocab = std::max(cpu.needs.vocab, shape.cols);
    return out;
  }
  if (shape.cols > cpu.needs.vocab) {
    throw Error(ErrorCode::kInternal, "[logits] more columns than prepare() saw");
  }
  out.impl->data = cpu.logits.as<float>();
  for (size_t i = 0; i < step->batch.logit_rows.size(); ++i) {
    cpu.row_pointers[i] = x.impl->data + int64_t{step->batch.logit_rows[i]} * x.shape.cols;
  }
  step->multiply_pointed(shape.rows, head, out.impl->data, softcap);
  return out;
}

}  // namespace llorch
