// gpu.h by the CUDA runtime, which is linked statically and opens the driver when first called.
#include "backends/cuda/gpu.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace llorch::cuda {
namespace {

constexpr size_t kSharedWithoutAsking = 48 << 10;

void check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  throw Error(ErrorCode::kDevice,
              std::string("[cuda] ") + call + ": " + cudaGetErrorString(result));
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Says what keeps CUDA from working, in words a user can act on.
void check_driver(GpuFacts* facts) {
  int driver = 0, runtime = 0, devices = 0;
  check(cudaDriverGetVersion(&driver), "driver version");
  check(cudaRuntimeGetVersion(&runtime), "runtime version");
  if (driver == 0) {
    throw Error(ErrorCode::kDevice, "[cuda] no NVIDIA driver: libcuda.so.1 cannot be opened");
  }
  // Minor versions of a major one are compatible.
  if (driver / 1000 < runtime / 1000) {
    throw Error(ErrorCode::kDevice, "[cuda] the driver is for CUDA " + version_text(driver) +
                                        ", this worker needs " + std::to_string(runtime / 1000) +
                                        ".0 or later");
  }
  check(cudaGetDeviceCount(&devices), "devices");
  if (facts->index < 0 || facts->index >= devices) {
    throw Error(ErrorCode::kDevice, "[cuda] no device " + std::to_string(facts->index) +
                                        "; there are " + std::to_string(devices));
  }
  facts->driver = driver;
}

}  // namespace

struct Gpu::Stream {
  cudaStream_t handle = nullptr;
  ~Stream() {
    if (handle) cudaStreamDestroy(handle);
  }
};

Gpu::Gpu(int index) : stream_(std::make_unique<Stream>()) {
  facts_.index = index;
  check_driver(&facts_);
  check(cudaSetDevice(index), "device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "device properties");
  facts_.name = properties.name;
  facts_.architecture = properties.major * 10 + properties.minor;
  facts_.multiprocessors = properties.multiProcessorCount;
  facts_.total_bytes = properties.totalGlobalMem;
  char bus_id[32] = {};
  check(cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), index), "bus id");
  facts_.pci_bus_id = bus_id;
  if (facts_.architecture < 80) {
    throw Error(ErrorCode::kDevice, "[cuda] device " + std::to_string(index) + " (" + facts_.name +
                                        ") has compute capability " +
                                        std::to_string(properties.major) + "." +
                                        std::to_string(properties.minor) + "; 8.0 is needed");
  }
  check(cudaStreamCreateWithFlags(&stream_->handle, cudaStreamNonBlocking), "stream");
}
Gpu::~Gpu() = default;

uint64_t Gpu::free_bytes() const {
  size_t free = 0, total = 0;
  check(cudaSetDevice(facts_.index), "device");  // whichever thread asks
  check(cudaMemGetInfo(&free, &total), "free memory");
  return free;
}

void Gpu::synchronize() const { check(cudaStreamSynchronize(stream_->handle), "wait"); }

void Gpu::upload(void* device, const void* host, size_t bytes) const {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_->handle), "upload");
}
void Gpu::download(void* host, const void* device, size_t bytes) const {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_->handle), "download");
}
void Gpu::move(void* to, const void* from, size_t bytes) const {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_->handle), "move");
}
void Gpu::fill(void* device, uint8_t value, size_t bytes) const {
  check(cudaMemsetAsync(device, value, bytes, stream_->handle), "fill");
}

DeviceMemory::DeviceMemory(const Gpu& gpu, uint64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  const cudaError_t result = cudaMalloc(&memory, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // or a later launch is told of it
    throw OutOfMemory(what, bytes, gpu.free_bytes());
  }
  check(result, "allocation");
  data_ = static_cast<std::byte*>(memory);
}
DeviceMemory::~DeviceMemory() {
  if (data_) cudaFree(data_);
}
DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(const Gpu&, uint64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), "pinned host memory");
  data_ = static_cast<std::byte*>(memory);
}
PinnedMemory::~PinnedMemory() {
  if (data_) cudaFreeHost(data_);
}
PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

struct Event::Impl {
  cudaEvent_t handle = nullptr;
};
Event::Event(const Gpu&) : impl_(std::make_unique<Impl>()) {
  check(cudaEventCreateWithFlags(&impl_->handle, cudaEventDisableTiming), "event");
}
Event::~Event() {
  if (impl_->handle) cudaEventDestroy(impl_->handle);
}
void Event::record(const Gpu& gpu) {
  check(cudaEventRecord(impl_->handle, gpu.stream().handle), "event");
}
void Event::wait() const { check(cudaEventSynchronize(impl_->handle), "step"); }

struct Graph::Impl {
  cudaGraphExec_t handle = nullptr;
  ~Impl() {
    if (handle) cudaGraphExecDestroy(handle);
  }
};
Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

void Graph::begin(const Gpu& gpu) {
  check(cudaStreamBeginCapture(gpu.stream().handle, cudaStreamCaptureModeThreadLocal), "capture");
}
Graph Graph::end(const Gpu& gpu) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(gpu.stream().handle, &graph), "end of capture");
  Graph made;
  made.impl_ = std::make_unique<Impl>();
  const cudaError_t result = cudaGraphInstantiate(&made.impl_->handle, graph, 0);
  cudaGraphDestroy(graph);
  check(result, "graph");
  // Its memory on the device is taken now, not by the first step.
  check(cudaGraphUpload(made.impl_->handle, gpu.stream().handle), "graph upload");
  return made;
}
void Graph::abandon(const Gpu& gpu) noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(gpu.stream().handle, &graph) == cudaSuccess) cudaGraphDestroy(graph);
  cudaGetLastError();
}
void Graph::launch(const Gpu& gpu) const {
  check(cudaGraphLaunch(impl_->handle, gpu.stream().handle), "graph launch");
}

void* detail::native_stream(const Gpu& gpu) { return gpu.stream().handle; }

void detail::launch(const Gpu& gpu, const void* kernel, void (*)(const void*),
                    const LaunchShape& shape, const void* params, size_t) {
  if (shape.shared_bytes > kSharedWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          "shared memory");
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {shape.blocks_x, shape.blocks_y, shape.blocks_z};
  config.blockDim = {shape.threads, 1, 1};
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = gpu.stream().handle;
  config.attrs = &attribute;
  config.numAttrs = gpu.facts().architecture >= 90 ? 1 : 0;
  void* arguments[] = {const_cast<void*>(params)};
  check(cudaLaunchKernelExC(&config, kernel, arguments), "kernel launch");
}

}  // namespace llorch::cuda
