// Names, values and meaning of NVML's interface are those of its API reference.
#include "backends/cuda/energy_meter.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace llorch::cuda {
namespace {

constexpr const char* kLibrary = "libnvidia-ml.so.1";

template <class Function>
Function* symbol(void* library, const char* name) {
  auto* const found = reinterpret_cast<Function*>(dlsym(library, name));
  if (found) return found;
  throw Error(ErrorCode::kDevice, std::string("[cuda] ") + kLibrary + " has no " + name);
}

}  // namespace

struct EnergyMeter::Impl {
  using Device = struct NvmlDevice*;

  void* library = nullptr;
  int (*energy_mj)(Device, unsigned long long*) = nullptr;
  Device device = nullptr;
  unsigned long long start_mj = 0;
  bool works = false;

  ~Impl() {
    if (library) dlclose(library);
  }
};

EnergyMeter::EnergyMeter(const Gpu& gpu) : impl_(std::make_unique<Impl>()) {
  impl_->library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (impl_->library == nullptr) {
    throw Error(ErrorCode::kDevice, std::string("[cuda] ") + kLibrary + " cannot be opened");
  }
  const auto start = symbol<int()>(impl_->library, "nvmlInit_v2");
  const auto find =
      symbol<int(const char*, Impl::Device*)>(impl_->library, "nvmlDeviceGetHandleByPciBusId_v2");
  impl_->energy_mj = symbol<int(Impl::Device, unsigned long long*)>(
      impl_->library, "nvmlDeviceGetTotalEnergyConsumption");
  if (const int result = start(); result != 0) {
    throw Error(ErrorCode::kDevice, "[cuda] NVML does not start: error " + std::to_string(result));
  }
  impl_->works = find(gpu.facts().pci_bus_id.c_str(), &impl_->device) == 0 &&
                 impl_->energy_mj(impl_->device, &impl_->start_mj) == 0;
}

EnergyMeter::~EnergyMeter() = default;

std::optional<double> EnergyMeter::joules() const {
  unsigned long long now_mj = 0;
  if (!impl_->works || impl_->energy_mj(impl_->device, &now_mj) != 0) return std::nullopt;
  return static_cast<double>(now_mj - impl_->start_mj) / 1000;
}

}  // namespace llorch::cuda
