// The energy that a GPU has drawn, by NVML, which is opened at run time. Knows no step.
#pragma once

#include <memory>
#include <optional>

#include "backends/cuda/gpu.h"

namespace llorch::cuda {

class EnergyMeter {
 public:
  // Throws Error{kDevice} if NVML cannot be opened.
  explicit EnergyMeter(const Gpu& gpu);
  ~EnergyMeter();
  // Of the whole device, whoever makes it work, since the meter was made; none if the device has
  // no meter. Any thread.
  std::optional<double> joules() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llorch::cuda
