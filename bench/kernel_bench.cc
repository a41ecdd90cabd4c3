// Times the backend's products with a weight alone, of each type and for few and many rows, and
// shows them as shares of what this machine does at most (probe/peaks.h).
//
//   kernel_bench [--dtypes bf16,q8_0] [--shapes 11264x2048,2048x5632] [--rows 1,16,512]
//   kernel_bench --probes        the machine alone
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/os.h"
#include "guarded_main.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"
#include "probe/peaks.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;
using bench::Arithmetic;
using bench::Peak;

// A type that can be timed, and the arithmetic whose peak it is measured against.
struct Type {
  DType dtype;
  Arithmetic arithmetic;
};
constexpr Type kTypes[] = {
    {DType::kF32, Arithmetic::kF32},     {DType::kF16, Arithmetic::kF32},
    {DType::kBF16, Arithmetic::kBF16},   {DType::kQ8_0, Arithmetic::kInt8},
    {DType::kQ4_0, Arithmetic::kInt8},   {DType::kQ4_K, Arithmetic::kInt8},
    {DType::kQ5_K, Arithmetic::kInt8},   {DType::kQ6_K, Arithmetic::kInt8},
    {DType::kIQ4_NL, Arithmetic::kInt8},
};

struct Options {
  std::vector<std::string> dtypes, shapes = {"11264x2048", "2048x5632"};
  std::vector<int> rows = {1, 4, 16, 128, 512};
  int threads = 0, repeats = 5;
  double gigabytes = 1.5;
  bool probes = false;
  std::string json_file;
};

struct Machine {
  double read_bytes = 0;  // a second
  std::vector<Peak> peaks;
};

Machine probe(const Options& o, int threads, Json* out) {
  Machine machine{bench::measure_reads(threads, static_cast<uint64_t>(o.gigabytes * 1e9)),
                  bench::measure_peaks(threads)};
  std::printf("%d threads: reads %.1f GB/s", threads, machine.read_bytes / 1e9);
  (*out)["read_gb_s"] = machine.read_bytes / 1e9;
  for (const Peak& peak : machine.peaks) {
    std::printf(", %s %.3f TOP/s", peak.name, peak.per_second / 1e12);
    (*out)["peaks_top_s"][peak.name] = peak.per_second / 1e12;
  }
  std::printf("\n");
  return machine;
}

// A matrix's bytes as a file has them: random, but that no value is large or not a number.
std::vector<std::byte> random_matrix(DType type, Shape shape) {
  TestNumbers numbers(7);
  const uint64_t row = row_bytes(type, shape.cols);
  std::vector<std::byte> bytes(static_cast<size_t>(shape.rows) * row);
  if (!is_quantised(type)) {
    for (size_t at = 0; at < bytes.size(); at += size_bytes(type)) {
      const auto value = static_cast<float>(numbers.unit() * 0.04 - 0.02);
      const uint16_t half = type == DType::kF16 ? f16_from_f32(value) : bf16_from_f32(value);
      std::memcpy(&bytes[at], type == DType::kF32 ? static_cast<const void*>(&value) : &half,
                  size_bytes(type));
    }
    return bytes;
  }
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(numbers.bits() >> 11);
  const uint16_t scale = f16_from_f32(1e-4f);
  const auto block = static_cast<size_t>(block_layout(type).bytes);
  const bool has_minimum = type == DType::kQ4_K || type == DType::kQ5_K;
  for (size_t at = 0; at < bytes.size(); at += block) {
    std::memcpy(&bytes[at + (type == DType::kQ6_K ? block - 2 : 0)], &scale, sizeof scale);
    if (has_minimum) std::memcpy(&bytes[at + 2], &scale, sizeof scale);
  }
  return bytes;
}

// Many equal matrices, more than the caches hold, to go through in turn.
class Products {
 public:
  Products(Backend& backend, DType type, Shape shape, uint64_t bytes, int most_rows)
      : backend_(backend) {
    const std::vector<std::byte> matrix = random_matrix(type, shape);
    const RawTensor raw{"w", type, shape, matrix};
    for (uint64_t held = 0; held < bytes; held += matrix.size()) {
      weights_.push_back(backend.pack({&raw, 1}, is_quantised(type) ? DType::kF32 : type));
    }
    const Shape narrow{kVocab, shape.cols}, wide{kVocab, shape.rows};
    const std::vector<std::byte> table = random_matrix(DType::kF32, narrow);
    const std::vector<std::byte> head = random_matrix(DType::kF32, wide);
    const RawTensor raw_table{"table", DType::kF32, narrow, table};
    const RawTensor raw_head{"head", DType::kF32, wide, head};
    table_ = backend.pack({&raw_table, 1}, DType::kF32);
    head_ = backend.pack({&raw_head, 1}, DType::kF32);
    const KvSpec kv{.groups = {{.layers = 1}},
                    .kv_heads = 1,
                    .head_dim = 64,
                    .block_tokens = 16,
                    .type = DType::kF32};
    const int32_t blocks[] = {1};
    backend.create_kv(kv, blocks);
    fill(most_rows);
    backend.prepare(forward(1), batch());
  }

  size_t count() const { return weights_.size(); }

  // Seconds of one product with `rows` rows: of a step with `count` of them, less one's without.
  double time(int rows, size_t count, int repeats) {
    fill(rows);
    const double all = best_step(count, repeats), none = best_step(0, repeats);
    return (all - none) / static_cast<double>(count);
  }

 private:
  static constexpr int kVocab = 64;

  // Every product but the last is dropped.
  Forward forward(size_t count) const {
    return [this, count](Ops& op) {
      const Tensor x = op.embed(table_);
      Tensor y = op.linear(x, weights_[0]);
      for (size_t i = 1; i <= count; ++i) y = op.linear(x, weights_[i % weights_.size()]);
      return op.logits(y, head_);
    };
  }

  double best_step(size_t count, int repeats) {
    const Sampling greedy{.temperature = 0};
    double best = 1e9;
    for (int i = 0; i < repeats; ++i) {
      const auto start = Clock::now();
      backend_.submit(forward(count), batch(), {&greedy, 1});
      backend_.collect();
      best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return best;
  }

  void fill(int rows) {
    tokens_.resize(static_cast<size_t>(rows));
    for (int i = 0; i < rows; ++i) tokens_[static_cast<size_t>(i)] = i % kVocab;
    zeros_.assign(tokens_.size(), 0);
    slots_.assign(tokens_.size(), -1);
    start_ = {0, rows};
  }

  Batch batch() const { return {tokens_, zeros_, slots_, start_, one_, zero_, zero_, 1}; }

  Backend& backend_;
  std::vector<Weight> weights_;
  Weight table_, head_;
  const std::vector<int32_t> one_ = {1}, zero_ = {0};
  std::vector<int32_t> tokens_, zeros_, slots_, start_;
};

void time_shape(const Type& type, Shape shape, const Machine& machine, const Options& o,
                Json* out) {
  constexpr size_t kCopiesOfMany = 8;  // of a product that takes long enough by itself
  constexpr int kMany = 64;
  Backend backend({.threads = o.threads});
  Products products(backend, type.dtype, shape, static_cast<uint64_t>(o.gigabytes * 1e9),
                    *std::max_element(o.rows.begin(), o.rows.end()));
  const double bytes =
      double{1} * shape.rows * static_cast<double>(row_bytes(type.dtype, shape.cols));
  const Peak* peak = bench::best_peak(machine.peaks, type.arithmetic);
  if (peak == nullptr) peak = bench::best_peak(machine.peaks, Arithmetic::kF32);
  for (const int rows : o.rows) {
    const size_t count =
        rows >= kMany ? std::min(kCopiesOfMany, products.count()) : products.count();
    const double seconds = products.time(rows, count, o.repeats);
    const double operations = 2.0 * rows * shape.rows * shape.cols / seconds;
    Json line = {{"dtype", name(type.dtype)},
                 {"shape", {shape.rows, shape.cols}},
                 {"rows", rows},
                 {"us", seconds * 1e6},
                 {"gb_s", bytes / seconds / 1e9},
                 {"of_reads", bytes / seconds / machine.read_bytes},
                 {"top_s", operations / 1e12}};
    std::printf("%-6s %5dx%-5d %4d rows: %9.1f us, %6.1f GB/s (%3.0f %% of reads), %6.3f TOP/s",
                name(type.dtype), shape.rows, shape.cols, rows, seconds * 1e6,
                bytes / seconds / 1e9, 100 * bytes / seconds / machine.read_bytes,
                operations / 1e12);
    if (peak != nullptr) {
      line["peak"] = peak->name;
      line["of_peak"] = operations / peak->per_second;
      std::printf(" (%3.0f %% of %s)", 100 * operations / peak->per_second, peak->name);
    }
    std::printf("\n");
    std::fflush(stdout);
    out->push_back(std::move(line));
  }
}

Shape parse_shape(const std::string& text) {
  Shape shape;
  if (std::sscanf(text.c_str(), "%dx%d", &shape.rows, &shape.cols) != 2 || shape.rows < 1 ||
      shape.cols < 1) {
    throw std::invalid_argument(text + " is not a shape like 2048x5632");
  }
  return shape;
}

int main_with(int argc, char** argv) {
  Options o;
  CLI::App app("Times products with weights, against what the machine does at most.");
  std::vector<std::string> known;
  for (const Type& type : kTypes) known.emplace_back(name(type.dtype));
  app.add_option("--dtypes", o.dtypes, "all if none is given")
      ->delimiter(',')
      ->check(CLI::IsMember(known));
  app.add_option("--shapes", o.shapes, "rows x columns of the weight")->delimiter(',');
  app.add_option("--rows", o.rows, "of the activations")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "0: one for each processor");
  app.add_option("--repeats", o.repeats, "of which the best counts")->check(CLI::PositiveNumber);
  app.add_option("--gigabytes", o.gigabytes, "of weights in turn; more than the caches hold");
  app.add_flag("--probes", o.probes, "what the machine does at most, and no product");
  app.add_option("--json", o.json_file, "write all figures here");
  CLI11_PARSE(app, argc, argv);
  if (o.dtypes.empty()) o.dtypes = known;

  Json out = Json::object();
  const int threads = o.threads > 0 ? o.threads : std::max(1, os::usable_cpus());
  const Machine machine = probe(o, threads, &out["machine"]);
  out["products"] = Json::array();
  for (const Type& type : kTypes) {
    if (o.probes ||
        std::find(o.dtypes.begin(), o.dtypes.end(), name(type.dtype)) == o.dtypes.end()) {
      continue;
    }
    for (const std::string& shape : o.shapes) {
      time_shape(type, parse_shape(shape), machine, o, &out["products"]);
    }
  }
  if (!o.json_file.empty()) std::ofstream(o.json_file) << out.dump(1) << '\n';
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  return llorch::bench::guarded_main(llorch::main_with, argc, argv);
}
