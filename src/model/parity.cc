#include "model/parity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ops/oracle.h"
#include "ops/ref_ops.h"

namespace llorch {
namespace {

using ref::Matrix;

std::vector<int32_t> random_tokens(int32_t vocab) {
  std::mt19937 random(1);
  std::vector<int32_t> tokens(Probe::kRows);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  }
  return tokens;
}

// How far each row is from what it should be, in parts of that one's norm. Not a number where it
// is not.
std::vector<double> differences(const Matrix& got, const Matrix& want) {
  std::vector<double> all;
  for (int r = 0; r < want.rows; ++r) {
    double off = 0, size = 0;
    for (int c = 0; c < want.cols; ++c) {
      off += std::pow(double{got.at(r, c)} - double{want.at(r, c)}, 2);
      size += std::pow(double{want.at(r, c)}, 2);
    }
    all.push_back(off == 0 ? 0 : std::sqrt(off / size));
  }
  return all;
}

// Of rows that are all finite; else infinity.
double worst(const std::vector<double>& off) {
  double most = 0;
  for (const double v : off) most = std::max(most, std::isfinite(v) ? v : HUGE_VAL);
  return most;
}
double middle(std::vector<double> off) {
  if (worst(off) == HUGE_VAL) return HUGE_VAL;
  std::ranges::sort(off);
  return off[off.size() / 2];
}

class Gate {
 public:
  Gate(Backend& backend, const Model& model, const Checkpoint& checkpoint,
       const ParityOptions& options)
      : model_(model),
        options_(options),
        layers_(std::clamp(options.layers, 0, model.config().layers)),
        tokens_(random_tokens(model.config().vocab)),
        sources_(weight_sources(checkpoint, model.config(), model.weights(), layers_)),
        oracle_(sources_, kBackendInfo),
        probe_(backend, model.kv_spec(options.block_tokens, options.kv_type), tokens_,
               options.logit_rows, model.config().vocab) {
    report_.layers = layers_;
  }

  ParityReport run() {
    const double off = difference(layers_, &probe_);
    if (!(off <= bound(layers_))) name_the_layer();
    report_.step = off / bound(layers_);
    return report_;
  }

 private:
  // How far the device's step of the first layers is from the host's; with a probe, each op is done
  // by the device too, on the way there.
  double difference(int layers, Probe* probe) {
    ParityOps ops(oracle_, probe, tokens_, options_.kv_type, &report_);
    const Matrix hidden = model_.step(ops, layers);
    ops.check_logits(hidden, model_.weights().head, model_.config().logit_softcap);
    const Matrix got =
        probe_.sums_of_steps(hidden.cols, [&](Ops& op) { return model_.step(op, layers); });
    ++report_.checks;
    const std::vector<double> off = differences(got, probe_.add_up(hidden));
    return is_mixture() ? middle(off) : worst(off);
  }

  // Routers are not continuous: a row may go to other experts, and with it what others see of it.
  // So there the middle row counts, and of that only whether it is something else.
  bool is_mixture() const { return !model_.config().moe.layers.empty(); }

  // Each op's own check is sharp; this one is for what an op does to those behind it, which is not
  // small. Roundings are of one size each, and of any sign.
  double bound(int layers) const {
    constexpr double kRoom = 16, kMost = 0.5;
    const double noise = oracle_.unit(options_.kv_type) * std::sqrt(1.0 + layers);
    return is_mixture() ? kMost : std::min(kMost, kRoom * noise);
  }

  [[noreturn]] void name_the_layer() {
    int layers = 0;
    double off = 0;
    for (; layers < layers_; ++layers) {
      off = difference(layers, nullptr);
      if (!(off <= bound(layers))) break;
    }
    if (layers == layers_) off = difference(layers, nullptr);
    const std::string where = layers == 0 ? "the embedding" : "layer " + std::to_string(layers - 1);
    char figures[64];
    std::snprintf(figures, sizeof figures, "%.2g of its size, bound %.2g", off, bound(layers));
    throw Error(ErrorCode::kDevice, "[parity] " + where +
                                        ": each op is right, but what the step comes to on the "
                                        "device is off by " +
                                        figures);
  }

  const Model& model_;
  const ParityOptions options_;
  const int layers_;
  const std::vector<int32_t> tokens_;
  const WeightSources sources_;
  const Oracle oracle_;
  Probe probe_;
  ParityReport report_;
};

}  // namespace

ParityReport check_parity(Backend& backend, const Model& model, const Checkpoint& checkpoint,
                          const ParityOptions& options) {
  return Gate(backend, model, checkpoint, options).run();
}

}  // namespace llorch
