// The device as host code sees it: memory, one stream, events, graphs. Two files define this, one
// by the CUDA runtime and one that runs kernels on the host (emulated/), for tests. Knows no op.
//
// Everything is asynchronous, in the order of the stream, but for what says that it waits. All
// functions throw Error{kDevice}, naming the call, when the device says no.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace llorch::cuda {

struct GpuFacts {
  std::string name;
  int index = 0;
  int architecture = 0;  // 90: compute capability 9.0
  int multiprocessors = 0;
  int driver = 0;          // 13000: CUDA 13.0
  std::string pci_bus_id;  // as NVML wants it
  uint64_t total_bytes = 0;
};

class Gpu {
 public:
  // Opens device `index` for the calling thread. Throws Error{kDevice}: no driver, too old a
  // driver, no such device, one that these kernels were not built for.
  explicit Gpu(int index);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const GpuFacts& facts() const { return facts_; }
  uint64_t free_bytes() const;  // any thread
  struct Stream;
  Stream& stream() const { return *stream_; }
  void synchronize() const;  // waits for all that was asked of the stream

  // Async. Host memory must stay as it is until the stream has come past; pageable memory may be
  // read at once.
  void upload(void* device, const void* host, size_t bytes) const;
  void download(void* host, const void* device, size_t bytes) const;
  void move(void* to, const void* from, size_t bytes) const;  // on the device
  void fill(void* device, uint8_t value, size_t bytes) const;

 private:
  GpuFacts facts_;
  std::unique_ptr<Stream> stream_;
};

// Bytes on the device, 256-byte aligned. Freeing them waits for all that the device was asked for.
// `what` is what an OutOfMemory error says it was for.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const Gpu& gpu, uint64_t bytes, const char* what);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Host memory that the device reads and writes by itself.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const Gpu& gpu, uint64_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// A point of the stream.
class Event {
 public:
  explicit Event(const Gpu& gpu);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(const Gpu& gpu);
  void wait() const;  // until the stream has come past the last record()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What was asked of the stream between begin() and end(), to be asked again as one. Copies and
// kernels keep the addresses and values they were given.
class Graph {
 public:
  Graph();
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;
  static void begin(const Gpu& gpu);
  static Graph end(const Gpu& gpu);
  // Leaves the capture that begin() started, after a failure within.
  static void abandon(const Gpu& gpu) noexcept;
  void launch(const Gpu& gpu) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct LaunchShape {
  uint32_t blocks_x = 1, blocks_y = 1, blocks_z = 1;
  uint32_t threads = 32;    // of a block; whole warps of 32
  size_t shared_bytes = 0;  // dynamic_shared()
};

namespace detail {  // for launch.h and cublas.cc
// Defined where the device is: gpu_cuda.cc or emulated/gpu.cc. `call` runs the kernel on the host.
void launch(const Gpu& gpu, const void* kernel, void (*call)(const void*), const LaunchShape& shape,
            const void* params, size_t params_bytes);
// The stream as CUDA's libraries take it, a cudaStream_t; gpu_cuda.cc alone has this.
void* native_stream(const Gpu& gpu);
}  // namespace detail

}  // namespace llorch::cuda
