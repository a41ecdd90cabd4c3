// The ops on the GPU, all but attention and experts: checks, then kernels on the stream. Knows no
// model and no sampling.
#include "backends/cuda/cuda_state.h"

namespace llorch {
namespace {

constexpr uint64_t kUnit = 64;  // bytes of a row that the arena counts in

uint64_t units(uint64_t bytes) { return (bytes + kUnit - 1) / kUnit; }

}  // namespace

Tensor Ops::Step::make(Shape shape, cuda::Form form) {
  const auto rows_of_step = static_cast<uint64_t>(rows());
  const auto each = rows_of_step == 0 ? 1 : static_cast<uint64_t>(shape.rows) / rows_of_step;
  const bool has_rounded = form.rounded != DType::kF32;
  const uint64_t values =
      form.values ? units(each * static_cast<uint64_t>(shape.cols) * sizeof(float)) : 0;
  const uint64_t rounded =
      has_rounded ? units(each * static_cast<uint64_t>(cuda::padded_columns(shape.cols)) * 2) : 0;
  auto impl = std::make_shared<Tensor::Impl>();
  impl->offset = cuda.arena.take(values + rounded);
  impl->arena = &cuda.arena;
  impl->rounded = form.rounded;
  cuda::Activations& data = impl->data;
  data.cols = shape.cols;
  data.stride = shape.cols;
  data.rounded_type = form.rounded;
  if (!measuring) {
    std::byte* const at = cuda.arena_memory.data() + impl->offset * kUnit * rows_of_step;
    if (form.values) data.values = reinterpret_cast<float*>(at);
    if (has_rounded) {
      data.rounded = reinterpret_cast<uint16_t*>(at + values * kUnit * rows_of_step);
    }
  }
  return {std::move(impl), shape, DType::kF32};
}

cuda::Activations Ops::Step::rounded_of(const Tensor& x, DType type) {
  if (type == DType::kF32 || x.impl->rounded == type) return x.impl->data;
  Tensor& late = x.impl->late[type == DType::kF16];
  const bool first = !late;
  if (first) late = make(x.shape, {false, type});
  cuda::Activations both = late.impl->data;
  both.values = x.impl->data.values;
  if (first && !measuring) cuda::round_rows(cuda.gpu, both, x.shape.rows);
  return both;
}

void Ops::Step::multiply_part(cuda::ProductArgs args) {
  if (measuring) {
    if (args.rows == nullptr) cuda.products.admit(cuda.gpu, args.w);
    if (!is_quantised(args.w.type)) return;
    uint64_t& most = cuda.needs.product_scratch;
    most = std::max(most, cuda::quantised_scratch_bytes(args.w.rows, args.w.cols, args.m));
    return;
  }
  if (args.m == 0) return;
  args.scratch = cuda.product_scratch.data();
  args.scratch_bytes = cuda.product_scratch.bytes();
  cuda.products.multiply(cuda.gpu, args);
}

void Ops::Step::multiply(const Tensor& x, const Weight& w, const int32_t* rows, int32_t m,
                         float* out, float softcap) {
  for (const cuda::PackedRows& part : w.impl->packed.rows) {
    const cuda::ProductArgs args{.w = part.view,
                                 .x = rounded_of(x, cuda::input_type(part.view.type)),
                                 .rows = rows,
                                 .m = m,
                                 .out = out + part.first_row,
                                 .out_stride = w.shape.rows,
                                 .softcap = softcap};
    multiply_part(args);
  }
}

cuda::Form Ops::Step::form_for(const Weight& w) {
  const DType type = cuda::input_type(w.impl->packed.rows[0].view.type);
  const bool one = std::ranges::all_of(w.impl->packed.rows, [type](const cuda::PackedRows& part) {
    return cuda::input_type(part.view.type) == type;
  });
  return {!one || type == DType::kF32, type};
}

Tensor Ops::Step::mlp(const Tensor& x, const Weight& up, const Weight& down, Act act, bool gated,
                      Shape shape) {
  const Tensor both = make({x.shape.rows, up.shape.rows});
  const Tensor hidden = make({x.shape.rows, down.shape.cols}, form_for(down));
  Tensor out = make(shape);
  multiply(x, up, nullptr, x.shape.rows, both.impl->data.values, 0);
  if (!measuring) {
    cuda::activate(cuda.gpu, {.up = both.impl->data.values,
                              .gated = gated,
                              .act = act,
                              .hidden = hidden.impl->data,
                              .m = x.shape.rows});
  }
  multiply(hidden, down, nullptr, x.shape.rows, out.impl->data.values, 0);
  return out;
}

void Ops::Step::norm(const Tensor& x, const Tensor* sum, const Tensor* total, const Norm& n,
                     const Tensor& out) {
  if (measuring) return;
  cuda::norm(cuda.gpu, {.x = x.impl->data.values,
                        .sum = sum ? sum->impl->data.values : nullptr,
                        .total = total ? total->impl->data.values : nullptr,
                        .norm = cuda::vectors_of(&n),
                        .out = out.impl->data,
                        .m = x.shape.rows});
}

Tensor Ops::embed(const Weight& table, float scale) {
  const Shape shape = shapes::embed(step->batch, named(table));
  Tensor out = step->make(shape);
  auto& cuda = step->cuda;
  if (step->measuring) {
    cuda.needs.embed_vocab = table.shape.rows;
    return out;
  }
  for (const cuda::PackedRows& part : table.impl->packed.rows) {
    const cuda::EmbedArgs args{.w = part.view,
                               .first_row = part.first_row,
                               .ids = step->view.tokens,
                               .m = step->rows(),
                               .scale = scale,
                               .out = out.impl->data};
    if (is_quantised(part.view.type)) {
      cuda::embed_quantised(cuda.gpu, args);
    } else {
      cuda::embed(cuda.gpu, args);
    }
  }
  return out;
}

Tensor Ops::norm(const Tensor& x, const Norm& n) {
  Tensor out = step->make(shapes::norm(x.shape, named(n)), step->product_form());
  step->norm(x, nullptr, nullptr, n, out);
  return out;
}

Tensor Ops::add_norm(const Tensor& x, Tensor* sum, const Norm& n) {
  const Shape shape = shapes::add_norm(x.shape, sum->shape, named(n));
  Tensor total = step->make(shape), out = step->make(shape, step->product_form());
  step->norm(x, sum, &total, n, out);
  *sum = std::move(total);
  return out;
}

void Ops::add(const Tensor& x, Tensor* sum) {
  const Shape shape = shapes::add(x.shape, sum->shape);
  Tensor total = step->make(shape);
  if (!step->measuring) {
    cuda::add(step->cuda.gpu, x.impl->data.values, sum->impl->data.values, total.impl->data,
              shape.rows);
  }
  *sum = std::move(total);
}

Tensor Ops::linear(const Tensor& x, const Weight& w) {
  Tensor out = step->make(shapes::linear(x.shape, named(w)));
  step->multiply(x, w, nullptr, x.shape.rows, out.impl->data.values, 0);
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
  auto& cuda = step->cuda;
  Tensor out{std::make_shared<Tensor::Impl>(), shape, DType::kF32};
  if (step->measuring) cuda.needs.vocab = std::max(cuda.needs.vocab, shape.cols);
  if (shape.cols > cuda.needs.vocab) {
    throw Error(ErrorCode::kInternal, "[logits] more columns than prepare() saw");
  }
  out.impl->data.values = cuda.logits.as<float>();
  step->multiply(x, head, step->view.logit_rows, shape.rows, out.impl->data.values, softcap);
  return out;
}

}  // namespace llorch
