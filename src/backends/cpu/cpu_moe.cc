// A mixture of experts on the CPU: each expert meets all its rows at once. Knows no model.
#include <cmath>

#include "backends/cpu/cpu_state.h"
#include "base/error.h"

namespace llorch {
namespace {

// The indices of the `count` highest of `scores`, the lowest first on a tie, then ascending. Goes
// through with NaNs as well, whatever it chooses then.
void choose(std::span<const float> scores, std::span<cpu::Route> chosen) {
  size_t count = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto better = [&](const cpu::Route& r) {
      return scores[i] > scores[static_cast<size_t>(r.expert)];
    };
    size_t place = count;
    while (place > 0 && better(chosen[place - 1])) --place;
    if (place == chosen.size()) continue;
    count = std::min(count + 1, chosen.size());
    for (size_t j = count - 1; j > place; --j) chosen[j] = chosen[j - 1];
    chosen[place].expert = static_cast<int32_t>(i);
  }
  std::ranges::sort(chosen, {}, &cpu::Route::expert);
}

// Softmax over all scores, then over the chosen alone if `renormalize`; as transformers, in f32.
void weigh(std::span<const float> scores, bool renormalize, std::span<cpu::Route> chosen) {
  float top = scores[0], total = 0, kept = 0;
  for (const float score : scores) top = std::max(top, score);
  for (const float score : scores) total += std::exp(score - top);
  for (cpu::Route& route : chosen) {
    route.weight = std::exp(scores[static_cast<size_t>(route.expert)] - top) / total;
    kept += route.weight;
  }
  if (!renormalize) return;
  for (cpu::Route& route : chosen) route.weight /= kept;
}

}  // namespace

void Ops::Step::choose_experts(const Tensor& logits, int top_k, bool renormalize) {
  const auto experts = static_cast<size_t>(logits.shape.cols), k = static_cast<size_t>(top_k);
  cpu.for_rows(
      logits.shape.rows, logits.shape.cols * int64_t{16}, [&](int32_t first, int32_t last, int) {
        for (auto row = static_cast<size_t>(first); row < static_cast<size_t>(last); ++row) {
          const std::span<const float> scores(logits.impl->data + row * experts, experts);
          const std::span<cpu::Route> chosen(cpu.routes.data() + row * k, k);
          choose(scores, chosen);
          weigh(scores, renormalize, chosen);
          for (cpu::Route& route : chosen) route.row = static_cast<int32_t>(row);
        }
      });
}

void Ops::Step::run_experts(const Tensor& x, const Moe& m, float* hidden, float* part, float* out) {
  const int32_t cols = x.shape.cols;
  const std::span routes(cpu.routes.data(),
                         static_cast<size_t>(x.shape.rows) * static_cast<size_t>(m.top_k));
  std::ranges::sort(routes, {}, [](const cpu::Route& r) { return std::pair(r.expert, r.row); });
  for (size_t first = 0; first < routes.size();) {
    const auto expert = static_cast<size_t>(routes[first].expert);
    const auto taken = [&](const cpu::Route& r) { return static_cast<size_t>(r.expert) == expert; };
    const auto end = std::ranges::find_if_not(routes.subspan(first), taken);
    const std::span group(routes.begin() + static_cast<std::ptrdiff_t>(first), end);
    for (size_t i = 0; i < group.size(); ++i) {
      cpu.row_pointers[i] = x.impl->data + int64_t{group[i].row} * cols;
    }
    const auto count = static_cast<int32_t>(group.size());
    mlp_pointed(count, m.gate_up[expert], m.down[expert], m.act, true, hidden, part, false);
    cpu.for_rows(count, cols, [&](int32_t from, int32_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const cpu::Route& route = group[static_cast<size_t>(i)];
        cpu.kernels.add_scaled(part + i * cols, route.weight, cols,
                               out + route.row * int64_t{cols});
      }
    });
    first += group.size();
  }
}

Tensor Ops::moe(const Tensor& x, const Moe& m) {
  auto& cpu = step->cpu;
  const int32_t rows = x.shape.rows, cols = x.shape.cols;
  Tensor out = step->make(shapes::moe(x.shape, m, named));
  const size_t routes = static_cast<size_t>(rows) * static_cast<size_t>(m.top_k);
  if (step->measuring) {
    cpu.needs.routes = std::max(cpu.needs.routes, routes);
  } else if (routes > cpu.routes.size()) {
    throw Error(ErrorCode::kInternal, "[moe] more experts per row than prepare() saw");
  }
  {
    // Every row may go to the same expert.
    const Tensor logits = step->make({rows, m.router->shape.rows}), part = step->make(x.shape),
                 hidden = step->make({rows, m.gate_up[0].shape.rows});
    if (!step->measuring) {
      step->multiply(x, *m.router, logits.impl->data);
      step->choose_experts(logits, m.top_k, m.renormalize);
      std::fill_n(out.impl->data, int64_t{rows} * cols, 0.0f);
      step->run_experts(x, m, hidden.impl->data, part.impl->data, out.impl->data);
    }
  }
  if (m.shared_down == nullptr) return out;
  const Tensor shared = mlp(x, *m.shared_gate_up, *m.shared_down, m.act);
  if (step->measuring) return out;
  const float* gate = m.shared_gate ? m.shared_gate->impl->packed.vector() : nullptr;
  cpu.for_rows(rows, cols, [&](int32_t first, int32_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * cols;
      const float factor =
          gate ? 1 / (1 + std::exp(-cpu.kernels.dot(x.impl->data + at, gate, cols))) : 1;
      cpu.kernels.add_scaled(shared.impl->data + at, factor, cols, out.impl->data + at);
    }
  });
  return out;
}

}  // namespace llorch
