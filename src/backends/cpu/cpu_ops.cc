// The ops on the CPU, all but attention and experts: checks, then kernels over the thread pool.
// Knows no model and no sampling.
#include "backends/cpu/cpu_state.h"
#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

size_t index_of(DType type) { return static_cast<size_t>(type); }

bool has_quantised(const Weight& w) {
  return std::ranges::any_of(w.impl->packed.rows,
                             [](const cpu::PackedRows& part) { return is_quantised(part.type); });
}

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

cpu::QuantisedRows cpu::State::quantised_rows(int32_t m, int32_t cols) const {
  return {quantised_values.as<int8_t>(), quantised_blocks.as<QuantisedBlock>(),
          cols / kBlockColumns, std::min(m, kRowTile)};
}

void cpu::State::quantise_rows(int32_t m, int32_t cols) {
  const QuantisedRows rows = quantised_rows(m, cols);
  for_rows(m, cols, [&](int32_t first, int32_t last, int) {
    for (int32_t i = first; i < last; ++i) {
      kernels.quantise_row(row_pointers[static_cast<size_t>(i)], i, cols, rows);
    }
  });
  ++roundings;
}

void Ops::Step::multiply(const Tensor& x, const Weight& w, float* out) {
  point_rows(x.impl->data, x.shape.cols, x.shape.rows);
  multiply_pointed(x.shape.rows, w, out, 0, cpu.is_rounded(x));
}

void Ops::Step::mlp_pointed(int32_t m, const Weight& up, const Weight& down, Act act, bool gated,
                            float* hidden, float* out, bool rounded) {
  const int32_t width = down.shape.cols;
  const int64_t stride = up.shape.rows;
  multiply_pointed(m, up, hidden, 0, rounded);
  const auto activate = cpu.kernels.activate[static_cast<size_t>(act)];
  const bool round = has_quantised(down);
  const cpu::QuantisedRows rows = cpu.quantised_rows(m, width);
  cpu.for_rows(m, stride, [&](int32_t first, int32_t last, int) {
    for (int32_t row = first; row < last; ++row) {
      float* values = hidden + row * stride;
      activate(values, gated ? values + width : nullptr, width);
      if (round) cpu.kernels.quantise_row(values, row, width, rows);
    }
  });
  if (round) ++cpu.roundings;
  point_rows(hidden, stride, m);
  multiply_pointed(m, down, out, 0, round);
}

void Ops::Step::multiply_pointed(int32_t m, const Weight& w, float* out, float softcap,
                                 bool rounded) {
  if (m == 0) return;
  const auto& parts = w.impl->packed.rows;
  const auto is_split = [&](const cpu::PackedRows& part) {
    return part.type == DType::kBF16 && cpu.kernels.split_row;
  };
  cpu::Matmul args{cpu.row_pointers.data(), out, w.shape.rows, m, softcap, {}, nullptr, {}};
  if (std::ranges::any_of(parts, is_split)) args.split = cpu.split_rows(m, w.shape.cols);
  if (has_quantised(w)) {
    if (!rounded) cpu.quantise_rows(m, w.shape.cols);
    args.quantised = cpu.quantised_rows(m, w.shape.cols);
  }
  for (const cpu::PackedRows& part : parts) {
    args.w = part.view;
    args.out = out + part.first_row;
    multiply_panels(args, cpu.kernels.matmul[index_of(part.type)]);
  }
}

void Ops::Step::multiply_panels(const cpu::Matmul& args, cpu::MatmulKernel kernel) {
  const int32_t panels = (args.w.rows - 1) / cpu.kernels.panel_rows + 1;
  // A task reads some 64 KB of weights, or computes about as long as that takes.
  constexpr int64_t kTaskBytes = 64 << 10;
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

Tensor Ops::Step::mlp(const Tensor& x, const Weight& up, const Weight& down, Act act, bool gated,
                      Shape shape) {
  const Tensor hidden = make({x.shape.rows, up.shape.rows});
  Tensor out = make(shape);
  if (measuring) return out;
  point_rows(x.impl->data, x.shape.cols, x.shape.rows);
  mlp_pointed(x.shape.rows, up, down, act, gated, hidden.impl->data, out.impl->data,
              cpu.is_rounded(x));
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

void Ops::Step::norm(const Tensor& x, const Tensor* sum, const Tensor* total, const Norm& n,
                     const Tensor& out) {
  const int32_t m = x.shape.rows, cols = x.shape.cols;
  const cpu::RowNorm vectors = cpu::vectors_of(&n);
  // Where there are quantised weights, a product comes next, but for a few norms.
  const bool round = cols <= cpu.most_quantised_columns && cols % cpu::kBlockColumns == 0;
  const cpu::QuantisedRows rows = cpu.quantised_rows(m, cols);
  cpu.for_rows(m, cols * int64_t{2}, [&](int32_t first, int32_t last, int) {
    for (int32_t row = first; row < last; ++row) {
      const int64_t at = row * int64_t{cols};
      const float* from = x.impl->data + at;
      if (sum) {
        float* const to = total->impl->data + at;
        cpu.kernels.add(from, sum->impl->data + at, cols, to);
        from = to;
      }
      cpu.kernels.norm(from, vectors, cols, out.impl->data + at);
      if (round) cpu.kernels.quantise_row(out.impl->data + at, row, cols, rows);
    }
  });
  if (round) out.impl->rounding = ++cpu.roundings;
}

Tensor Ops::norm(const Tensor& x, const Norm& n) {
  Tensor out = step->make(shapes::norm(x.shape, named(n)));
  if (!step->measuring) step->norm(x, nullptr, nullptr, n, out);
  return out;
}

Tensor Ops::add_norm(const Tensor& x, Tensor* sum, const Norm& n) {
  const Shape shape = shapes::add_norm(x.shape, sum->shape, named(n));
  Tensor total = step->make(shape), out = step->make(shape);
  if (!step->measuring) step->norm(x, sum, &total, n, out);
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
  if (!step->measuring) step->multiply(x, w, out.impl->data);
  return out;
}

Tensor Ops::mlp(const Tensor& x, const Weight& gate_up, const Weight& down, Act act) {
  return step->mlp(x, gate_up, down, act, true, shapes::mlp(x.shape, named(gate_up), named(down)));
}

Tensor Ops::plain_mlp(const Tensor& x, const Weight& up, const Weight& down, Act act) {
  return step->mlp(x, up, down, act, false, shapes::plain_mlp(x.shape, named(up), named(down)));
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
  step->multiply_pointed(shape.rows, head, out.impl->data, softcap, false);
  return out;
}

}  // namespace llorch
