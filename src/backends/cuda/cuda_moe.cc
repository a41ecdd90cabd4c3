// Mixtures of experts on the GPU: rows are sorted by expert there, and each product runs over all
// experts at once.
#include <algorithm>

#include "backends/cuda/cuda_state.h"

namespace llorch {

// The views of a part of all experts' weights, in device memory.
cuda::Experts Ops::Step::experts_of(std::span<const Weight> weights, size_t part,
                                    const int32_t* start) {
  const auto key = std::pair(static_cast<const void*>(weights[0].impl.get()), part);
  auto found = cuda.expert_tables.find(key);
  if (found == cuda.expert_tables.end()) {
    if (recording) throw Error(ErrorCode::kInternal, "[moe] experts that prepare() did not see");
    std::vector<cuda::WeightRows> views;
    for (const Weight& w : weights) views.push_back(w.impl->packed.rows[part].view);
    const uint64_t bytes = views.size() * sizeof(cuda::WeightRows);
    cuda::DeviceMemory memory(cuda.gpu, bytes, "experts");
    cuda.gpu.upload(memory.data(), views.data(), bytes);
    cuda.gpu.synchronize();  // `views` ends here
    found = cuda.expert_tables.emplace(key, std::move(memory)).first;
  }
  return {found->second.as<cuda::WeightRows>(), start, static_cast<int32_t>(weights.size())};
}

namespace {

// One product over all experts takes one layout.
void check_alike(std::span<const Weight> weights) {
  const auto& first = weights[0].impl->packed.rows;
  for (const Weight& w : weights) {
    const auto& rows = w.impl->packed.rows;
    const bool alike = std::ranges::equal(rows, first, [](const auto& a, const auto& b) {
      return a.view.type == b.view.type && a.view.rows == b.view.rows;
    });
    if (!alike) {
      throw Error(ErrorCode::kUnsupported,
                  "[moe] " + w.impl->name + " is not of the types of " + weights[0].impl->name);
    }
  }
}

}  // namespace

void Ops::Step::multiply_experts(std::span<const Weight> weights, const cuda::RouteArgs& routes,
                                 const Tensor& x, const cuda::ProductArgs& product) {
  check_alike(weights);
  const auto& parts = weights[0].impl->packed.rows;
  for (size_t i = 0; i < parts.size(); ++i) {
    cuda::ProductArgs args = product;
    args.w = parts[i].view;
    args.x = rounded_of(x, cuda::input_type(args.w.type));
    if (measuring) {
      experts_of(weights, i, nullptr);
      continue;
    }
    args.out = product.out + parts[i].first_row;
    args.experts = experts_of(weights, i, routes.start);
    multiply_part(args);
  }
}

// [rows top_k, D]: each row by each of its experts.
Tensor Ops::Step::run_experts(const Tensor& x, const Moe& m, const cuda::RouteArgs& routes) {
  const int32_t pairs = x.shape.rows * m.top_k;
  const Weight& up = m.gate_up[0];
  const Weight& down = m.down[0];
  const Tensor both = make({pairs, up.shape.rows});
  const Tensor hidden = make({pairs, down.shape.cols}, form_for(down));
  Tensor parts = make({pairs, down.shape.rows});
  multiply_experts(m.gate_up, routes, x,
                   {.rows = routes.rows,
                    .m = pairs,
                    .out = both.impl->data.values,
                    .out_stride = up.shape.rows});
  if (!measuring) {
    cuda::activate(cuda.gpu, {.up = both.impl->data.values,
                              .gated = true,
                              .act = m.act,
                              .hidden = hidden.impl->data,
                              .m = pairs});
  }
  multiply_experts(m.down, routes, hidden,
                   {.m = pairs, .out = parts.impl->data.values, .out_stride = down.shape.rows});
  return parts;
}

cuda::RouteArgs Ops::Step::routes_of(const Tensor& scores, const Moe& m) {
  const int32_t rows = scores.shape.rows, pairs = rows * m.top_k;
  auto& needs = cuda.needs;
  if (measuring) {
    needs.experts_of_row = std::max(needs.experts_of_row, m.top_k);
    needs.experts = std::max(needs.experts, scores.shape.cols);
  }
  if (m.top_k > needs.experts_of_row || scores.shape.cols > needs.experts) {
    throw Error(ErrorCode::kInternal, "[moe] more experts per row than prepare() saw");
  }
  auto* const base = cuda.routes.as<int32_t>();
  const int32_t start = needs.experts + 1;
  cuda::RouteArgs routes{.logits = scores.impl->data.values,
                         .m = rows,
                         .count = scores.shape.cols,
                         .top_k = m.top_k,
                         .renormalize = m.renormalize};
  if (measuring) return routes;
  routes.start = base;
  routes.rows = base + start;
  routes.places = routes.rows + pairs;
  routes.weights = reinterpret_cast<float*>(routes.places + pairs);
  cuda::route(cuda.gpu, routes);
  return routes;
}

Tensor Ops::moe(const Tensor& x, const Moe& m) {
  const Shape shape = shapes::moe(x.shape, m, [](const Weight& w) { return named(w); });
  const int32_t rows = x.shape.rows;
  const Tensor scores = step->make({rows, m.router->shape.rows});
  step->multiply(x, *m.router, nullptr, rows, scores.impl->data.values, 0);
  const cuda::RouteArgs routes = step->routes_of(scores, m);
  const Tensor parts = step->run_experts(x, m, routes);
  Tensor shared, gates;
  if (m.shared_gate_up) {
    shared = step->mlp(x, *m.shared_gate_up, *m.shared_down, m.act, true, shape);
    if (m.shared_gate) {
      gates = step->make({rows, 1});
      step->multiply(x, *m.shared_gate, nullptr, rows, gates.impl->data.values, 0);
    }
  }
  Tensor out = step->make(shape);
  if (step->measuring) return out;
  cuda::mix(step->cuda.gpu, {.parts = parts.impl->data.values,
                             .places = routes.places,
                             .weights = routes.weights,
                             .shared = shared ? shared.impl->data.values : nullptr,
                             .gates = gates ? gates.impl->data.values : nullptr,
                             .m = rows,
                             .top_k = m.top_k,
                             .out = out.impl->data});
  return out;
}

}  // namespace llorch
