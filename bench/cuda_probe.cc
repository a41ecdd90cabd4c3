// What a GPU does at most, for tools/gpu_check: copies on it, uploads from pinned memory, products
// of bf16 matrices by NVIDIA's library. Knows no model and no kernel of ours.
//
//   cuda_probe [--device 0] [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/cuda/gpu.h"
#include "base/error.h"
#include "cublas_peak.h"
#include "guarded_main.h"
#include "random_shape.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;
using cuda::DeviceMemory;
using cuda::Gpu;
using cuda::PinnedMemory;

struct Options {
  int device = 0, repeats = 5, products = 8192;
  double copy_gb = 4, upload_gb = 0.5;
  std::string json_file;
};

// Of work that was asked for, `count` times at once, so that a launch's cost does not show.
template <class Work>
double seconds_of(const Gpu& gpu, int count, const Work& work) {
  gpu.synchronize();
  const auto start = Clock::now();
  for (int i = 0; i < count; ++i) work();
  gpu.synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count() / count;
}

template <class Work>
std::vector<double> rates_gb_s(const Gpu& gpu, const Options& o, double gigabytes, int count,
                               const Work& work) {
  seconds_of(gpu, 1, work);
  std::vector<double> rates(static_cast<size_t>(o.repeats));
  for (double& rate : rates) rate = gigabytes / seconds_of(gpu, count, work);
  return rates;
}

uint64_t bytes_of(double gigabytes) { return static_cast<uint64_t>(gigabytes * 1e9) / 256 * 256; }

PinnedMemory random_bytes(const Gpu& gpu, uint64_t bytes) {
  PinnedMemory memory(gpu, bytes);
  constexpr uint64_t kOnce = 1 << 20;
  std::vector<float> values(kOnce / sizeof(float));
  bench::random_values(1, 0, 0, values.size(), values.data());
  for (uint64_t at = 0; at < bytes; at += kOnce) {
    std::memcpy(memory.data() + at, values.data(), std::min(kOnce, bytes - at));
  }
  return memory;
}

void measure_copies(const Gpu& gpu, const Options& o, Json* out) {
  const uint64_t bytes = bytes_of(o.copy_gb), part = std::min(bytes_of(o.upload_gb), bytes);
  const PinnedMemory host = random_bytes(gpu, part);
  const DeviceMemory from(gpu, bytes, "the probe"), to(gpu, bytes, "the probe");
  const double part_gb = static_cast<double>(part) / 1e9;
  (*out)["upload_gb_s"] =
      rates_gb_s(gpu, o, part_gb, 4, [&] { gpu.upload(from.data(), host.data(), part); });
  for (uint64_t at = part; at < bytes; at += part) {
    gpu.upload(from.data() + at, host.data(), std::min(part, bytes - at));
  }
  // Every byte is read once and written once.
  (*out)["copy_gb_s"] = rates_gb_s(gpu, o, 2 * static_cast<double>(bytes) / 1e9, 10,
                                   [&] { gpu.move(to.data(), from.data(), bytes); });
}

void measure_products(const Options& o, Json* out) {
  try {
    (*out)["bf16_tflop_s"] = bench::cublas_tflop_s(o.products, o.repeats);
  } catch (const Error& error) {
    (*out)["bf16_tflop_s"] = nullptr;
    (*out)["bf16_tflop_s_error"] = error.what();
  }
}

int main_with(int argc, char** argv) {
  Options o;
  CLI::App app("What a GPU does at most.");
  app.option_defaults()->always_capture_default();
  app.add_option("--device", o.device, "which, where there are several");
  app.add_option("--repeats", o.repeats)->check(CLI::PositiveNumber);
  app.add_option("--copy-gb", o.copy_gb, "copied at once")->check(CLI::PositiveNumber);
  app.add_option("--upload-gb", o.upload_gb, "uploaded at once")->check(CLI::PositiveNumber);
  app.add_option("--products", o.products, "rows and columns")->check(CLI::PositiveNumber);
  app.add_option("--json", o.json_file, "write all figures here");
  CLI11_PARSE(app, argc, argv);
  const Gpu gpu(o.device);
  const cuda::GpuFacts& facts = gpu.facts();
  Json out = {{"device",
               {{"name", facts.name},
                {"architecture", facts.architecture},
                {"multiprocessors", facts.multiprocessors},
                {"driver", facts.driver},
                {"total_bytes", facts.total_bytes}}}};
  measure_copies(gpu, o, &out);
  measure_products(o, &out);
  std::printf("%s\n", out.dump(1).c_str());
  if (!o.json_file.empty()) std::ofstream(o.json_file) << out.dump(1) << '\n';
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  return llorch::bench::guarded_main(llorch::main_with, argc, argv);
}
