// gpu.h on the host, for tests: nothing asked of the stream happens before somebody waits for it,
// so that what is read too early, or freed or changed too soon, shows. LLORCH_EMULATED_DEVICES (1)
// and LLORCH_EMULATED_MEMORY (bytes of each, 8 GiB) say what machine it is.
#include "backends/cuda/gpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "backends/cuda/emulated/block.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

constexpr size_t kAlign = 256;

uint64_t number(const char* variable, uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

uint64_t total_memory() { return number("LLORCH_EMULATED_MEMORY", uint64_t{8} << 30); }

std::atomic<uint64_t> used_bytes{0};

}  // namespace

using Work = std::vector<std::function<void()>>;

struct Gpu::Stream {
  Work queue, captured;
  bool capturing = false;

  Stream() { change_all(this, nullptr); }
  ~Stream() { change_all(nullptr, this); }
  Stream(const Stream&) = delete;

  // Of every device; calls that have to wait for "the device" wait for all.
  static void run_all() {
    const std::lock_guard lock(mutex);
    for (Stream* stream : all) stream->run();
  }

  void add(std::function<void()> work) {
    (capturing ? captured : queue).push_back(std::move(work));
  }
  void run() {
    for (const auto& work : std::exchange(queue, {})) work();
  }

 private:
  static void change_all(Stream* added, Stream* gone) {
    const std::lock_guard lock(mutex);
    if (added) all.push_back(added);
    std::erase(all, gone);
  }
  static inline std::mutex mutex;
  static inline std::vector<Stream*> all;
};

Gpu::Gpu(int index) : stream_(std::make_unique<Stream>()) {
  const auto devices = static_cast<int>(number("LLORCH_EMULATED_DEVICES", 1));
  if (index < 0 || index >= devices) {
    throw Error(ErrorCode::kDevice, "[cuda] no device " + std::to_string(index) + "; there are " +
                                        std::to_string(devices));
  }
  facts_ = {.name = "emulated",
            .index = index,
            .architecture = 90,
            .multiprocessors = 8,
            .driver = 13000,
            .pci_bus_id = "",
            .total_bytes = total_memory()};
}
Gpu::~Gpu() = default;

uint64_t Gpu::free_bytes() const { return total_memory() - used_bytes; }
void Gpu::synchronize() const { stream_->run(); }

void Gpu::upload(void* device, const void* host, size_t bytes) const {
  stream_->add([=] { std::memcpy(device, host, bytes); });
}
void Gpu::download(void* host, const void* device, size_t bytes) const {
  stream_->add([=] { std::memcpy(host, device, bytes); });
}
void Gpu::move(void* to, const void* from, size_t bytes) const {
  stream_->add([=] { std::memcpy(to, from, bytes); });
}
void Gpu::fill(void* device, uint8_t value, size_t bytes) const {
  stream_->add([=] { std::memset(device, value, bytes); });
}

DeviceMemory::DeviceMemory(const Gpu& gpu, uint64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes > gpu.free_bytes()) throw OutOfMemory(what, bytes, gpu.free_bytes());
  data_ =
      static_cast<std::byte*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign));
  if (data_ == nullptr) throw OutOfMemory(what, bytes, gpu.free_bytes());
  std::memset(data_, 0xff, bytes);  // NaNs: what is read was written
  used_bytes += bytes;
}
DeviceMemory::~DeviceMemory() {
  if (data_) {
    Gpu::Stream::run_all();
    used_bytes -= bytes_;
  }
  std::free(data_);
}
DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(const Gpu&, uint64_t bytes)
    : data_(static_cast<std::byte*>(std::calloc(bytes + 1, 1))), bytes_(bytes) {
  if (data_ == nullptr) throw std::bad_alloc();
}
PinnedMemory::~PinnedMemory() { std::free(data_); }
PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

struct Event::Impl {
  Gpu::Stream* stream = nullptr;
};
Event::Event(const Gpu&) : impl_(std::make_unique<Impl>()) {}
Event::~Event() = default;
void Event::record(const Gpu& gpu) { impl_->stream = &gpu.stream(); }
void Event::wait() const {
  if (impl_->stream) impl_->stream->run();
}

struct Graph::Impl {
  Work work;
};
Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

void Graph::begin(const Gpu& gpu) {
  CHECK(!gpu.stream().capturing);
  gpu.stream().capturing = true;
}
Graph Graph::end(const Gpu& gpu) {
  Gpu::Stream& stream = gpu.stream();
  stream.capturing = false;
  Graph graph;
  graph.impl_ = std::make_unique<Impl>(Impl{std::exchange(stream.captured, {})});
  return graph;
}
void Graph::abandon(const Gpu& gpu) noexcept {
  gpu.stream().capturing = false;
  gpu.stream().captured.clear();
}
void Graph::launch(const Gpu& gpu) const {
  for (const auto& work : impl_->work) gpu.stream().add(work);
}

void detail::launch(const Gpu& gpu, const void*, void (*call)(const void*),
                    const LaunchShape& shape, const void* params, size_t params_bytes) {
  const auto* const bytes = static_cast<const std::byte*>(params);
  gpu.stream().add([call, shape, copy = std::vector<std::byte>(bytes, bytes + params_bytes)] {
    const emulated::Launch launch{{shape.blocks_x, shape.blocks_y, shape.blocks_z},
                                  {shape.threads, 1, 1},
                                  shape.shared_bytes};
    emulated::run(launch, call, copy.data());
  });
}

}  // namespace llorch::cuda
