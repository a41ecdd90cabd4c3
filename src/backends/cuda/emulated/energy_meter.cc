// An emulated device has no meter.
#include "backends/cuda/energy_meter.h"

namespace llorch::cuda {

struct EnergyMeter::Impl {};
EnergyMeter::EnergyMeter(const Gpu&) {}
EnergyMeter::~EnergyMeter() = default;
std::optional<double> EnergyMeter::joules() const { return std::nullopt; }

}  // namespace llorch::cuda
