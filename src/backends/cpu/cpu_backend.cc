// The CPU backend's life: start, packing, kv blocks, scratch, steps. Knows no model.
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

#include "backends/cpu/cpu_state.h"
#include "backends/cpu/isa.h"
#include "base/error.h"
#include "base/os.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

int thread_count(const BackendOptions& options) {
  return options.threads > 0 ? options.threads : std::max(1, os::usable_cpus());
}

// Floats that the largest kernel call needs; see kernels.h.
uint64_t scratch_floats(const cpu::Needs& needs, const cpu::Kernels& kernels) {
  const int64_t matmul = int64_t{cpu::kBlockPanels} * kernels.sum_rows * kernels.panel_rows +
                         cpu::kTileScratch / int64_t{sizeof(float)};
  const int64_t attend = int64_t{needs.queries} * (3 * needs.kv_row + cpu::kChunkTokens + 7) +
                         int64_t{2 * cpu::kChunkTokens} * needs.kv_row;
  return static_cast<uint64_t>(std::max({matmul, attend, int64_t{needs.rope_pairs}}));
}

// Kernels::split_row()'s.
uint64_t split_bytes(uint64_t rows, int32_t columns) {
  constexpr uint64_t kTileBytes =
      uint64_t{cpu::kSplits * cpu::kSplitRows * cpu::kSplitColumns} * sizeof(uint16_t);
  const uint64_t across =
      (static_cast<uint64_t>(columns) + cpu::kSplitColumns - 1) / cpu::kSplitColumns;
  return (rows + cpu::kSplitRows - 1) / cpu::kSplitRows * across * kTileBytes;
}

void check_sizes(const Batch& batch, const cpu::Needs& needs) {
  const auto want = [](const char* what, size_t got, int32_t most) {
    if (got > static_cast<size_t>(most)) {
      throw Error(ErrorCode::kInternal, std::string("[submit] ") + what + "; got " +
                                            std::to_string(got) + ", prepared for " +
                                            std::to_string(most));
    }
  };
  want("tokens", batch.tokens.size(), needs.rows);
  want("logit rows", batch.logit_rows.size(), needs.logit_rows);
}

}  // namespace

cpu::State::State(const BackendOptions& options)
    : kernels(cpu::choose_kernels()), pool(thread_count(options)) {}

Backend::Backend(const BackendOptions& options) {
  try {
    impl_ = std::make_unique<Impl>(options);
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::kDevice, std::string("[cpu] cannot start threads: ") + error.what());
  }
}

Backend::~Backend() = default;

Device Backend::device() const {
  const uint64_t free_bytes = os::free_memory_bytes();
  const int threads = impl_->pool.threads();
  return {std::string("cpu (") + impl_->kernels.name + ", " + std::to_string(threads) +
              (threads == 1 ? " thread)" : " threads)"),
          free_bytes + os::resident_bytes(), free_bytes};
}

void Backend::verify_device() {
  alignas(64) float a[16] = {}, b[16] = {}, sum[16];
  std::fill(std::begin(sum), std::end(sum), 1.0f);
  impl_->kernels.add(a, b, 4, sum);
  for (int i = 0; i < 4; ++i) {
    if (sum[i] != 0) throw Error(ErrorCode::kDevice, "[cpu] the sum of zeros is not zero");
  }
}

namespace {

void refuse_f8(DType type) {
  if (type == DType::kF8E4M3) {
    throw Error(ErrorCode::kUnsupported, "[cpu] f8_e4m3 is for the cuda worker");
  }
}

}  // namespace

Weight Backend::pack(std::span<const RawTensor> parts, DType type,
                     std::span<const RawTensor> bias) {
  const Shape shape = shapes::packed(parts, bias);
  for (const RawTensor& part : parts) refuse_f8(part.type);
  auto impl = std::make_shared<Weight::Impl>();
  impl->held_bytes = impl_->weight_bytes;
  impl->name = shapes::packed_name(parts);
  impl->packed = cpu::pack_weight(parts, bias, shape, type, impl_->kernels, impl_->pool);
  *impl_->weight_bytes += impl->packed.bytes();
  for (const cpu::PackedRows& rows : impl->packed.rows) {
    int32_t* most = is_quantised(rows.type)     ? &impl_->most_quantised_columns
                    : rows.type == DType::kBF16 ? &impl_->most_columns
                                                : nullptr;
    if (most) *most = std::max(*most, shape.cols);
  }
  const DType stored = shape.rows == 1 ? DType::kF32 : impl->packed.rows[0].type;
  return {std::move(impl), shape, stored};
}

uint64_t Backend::weight_bytes() const { return *impl_->weight_bytes; }

std::optional<double> Backend::energy_j() const { return std::nullopt; }

uint64_t Backend::block_bytes(const KvSpec& spec, size_t group) {
  return uint64_t(spec.groups.at(group).layers) * 2 * cpu::KvPool::half_bytes(spec);
}

void Backend::create_kv(const KvSpec& spec, std::span<const int32_t> blocks) {
  shapes::kv_spec(spec, blocks);
  refuse_f8(spec.type);
  impl_->kv = {};
  for (size_t group = 0; group < blocks.size(); ++group) {
    const uint64_t bytes = block_bytes(spec, group) * uint64_t(blocks[group]);
    std::byte* const memory = impl_->kv.memory.emplace_back(bytes, "kv blocks").data();
    // Touched now, so that no step later waits for the kernel or finds no memory.
    constexpr uint64_t kPiece = uint64_t{4} << 20;
    impl_->pool.parallel_for(static_cast<int>((bytes - 1) / kPiece + 1), [&](int task, int) {
      const uint64_t first = uint64_t(task) * kPiece;
      std::memset(memory + first, 0, std::min(kPiece, bytes - first));
    });
  }
  impl_->kv.limits = {spec, {blocks.begin(), blocks.end()}};
}

void Backend::copy_block(size_t group, int32_t from, int32_t to) {
  const auto& limits = impl_->kv.limits;
  shapes::copy_block(group, from, to, limits);
  for (int i = 0; i < limits.spec.groups[group].layers; ++i) {
    const cpu::KvLayer layer = impl_->kv.layer(group, i);
    std::memmove(layer.blocks + to * layer.block_bytes, layer.blocks + from * layer.block_bytes,
                 static_cast<size_t>(layer.block_bytes));
  }
}

namespace {

Tensor run(const Forward& f, Ops::Step* step) {
  Ops ops;
  ops.step = step;
  Tensor result = f(ops);
  if (!result || result.impl->arena != nullptr) {
    throw Error(ErrorCode::kInternal, "[submit] the step's result is not what logits() gave");
  }
  shapes::result(result.shape, step->batch);
  return result;
}

}  // namespace

float* cpu::State::rope_table(size_t index) const {
  size_t floats = 0;
  for (size_t i = 0; i < index; ++i) {
    floats += static_cast<size_t>(needs.rows) * static_cast<size_t>(needs.ropes[i]->dims);
  }
  return rope_tables.as<float>() + floats;
}

uint64_t cpu::State::allocate_scratch() {
  const auto rows = static_cast<uint64_t>(needs.rows);
  const auto logit_rows = static_cast<uint64_t>(needs.logit_rows);
  uint64_t rope_floats = 0;
  for (const Rope* rope : needs.ropes) rope_floats += rows * static_cast<uint64_t>(rope->dims);
  arena_memory = cpu::Memory(arena.peak() * 64 * rows, "activations");
  logits = cpu::Memory(logit_rows * static_cast<uint64_t>(needs.vocab) * 4, "logits");
  rope_tables = cpu::Memory(rope_floats * 4, "rope tables");
  split = cpu::Memory(kernels.split_row ? split_bytes(std::max(rows, logit_rows), most_columns) : 0,
                      "activations");
  // Kernels read whole tiles, even where there are fewer rows.
  const uint64_t most_rows = (std::max(rows, logit_rows) / cpu::kRowTile + 2) * cpu::kRowTile,
                 blocks = static_cast<uint64_t>(most_quantised_columns) / cpu::kBlockColumns;
  quantised_values = cpu::Memory(most_rows * blocks * cpu::kBlockColumns, "activations");
  quantised_blocks = cpu::Memory(most_rows * blocks * sizeof(cpu::QuantisedBlock), "activations");
  const auto most_states = static_cast<uint64_t>(pool.threads() == 1 ? 0 : 3 * most_split_pairs());
  states = cpu::Memory(most_states * state_floats() * 4, "attention states");
  uint64_t bytes = 0;
  for (cpu::Memory* memory : {&arena_memory, &logits, &rope_tables, &split, &quantised_values,
                              &quantised_blocks, &states}) {
    memory->commit();
    bytes += memory->bytes();
  }
  thread_scratch.clear();
  sampling_scratch.resize(static_cast<size_t>(pool.threads()));
  for (SamplingScratch& scratch : sampling_scratch) {
    scratch.reserve(static_cast<size_t>(needs.vocab));
    thread_scratch.emplace_back(scratch_floats(needs, kernels) * 4, "scratch");
    thread_scratch.back().commit();
    bytes += thread_scratch.back().bytes() + static_cast<uint64_t>(needs.vocab) * 12;
  }
  row_pointers.resize(std::max(rows, logit_rows));
  tiles.reserve(rows);
  routes.resize(needs.routes);
  return bytes + rows * (sizeof(const float*) + sizeof(cpu::RowTile)) +
         needs.routes * sizeof(cpu::Route);
}

uint64_t Backend::prepare(const Forward& f, const Batch& largest) {
  shapes::batch_to_measure(largest, impl_->kv.limits.spec);
  impl_->prepared = false;
  impl_->needs = {};
  impl_->needs.rows = static_cast<int32_t>(largest.tokens.size());
  impl_->needs.logit_rows = static_cast<int32_t>(largest.logit_rows.size());
  impl_->arena.reset();
  Ops::Step step{*impl_, largest, true};
  run(f, &step);
  impl_->arena.fix();
  const uint64_t bytes = impl_->allocate_scratch();
  impl_->prepared = true;
  return bytes;
}

void cpu::State::sample_rows(const Tensor& tensor, std::span<const Sampling> sampling) {
  results.assign(sampling.size(), {});
  std::vector<std::exception_ptr> failures(sampling.size());
  const auto vocab = static_cast<size_t>(tensor.shape.cols);
  pool.parallel_for(static_cast<int>(sampling.size()), [&](int task, int thread) {
    const auto row = static_cast<size_t>(task);
    try {
      results[row] = sample({tensor.impl->data + row * vocab, vocab}, sampling[row],
                            sampling_scratch[static_cast<size_t>(thread)]);
    } catch (...) {
      failures[row] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

void Backend::submit(const Forward& f, const Batch& batch, std::span<const Sampling> sampling) {
  if (!impl_->prepared) throw Error(ErrorCode::kInternal, "[submit] comes before prepare()");
  shapes::batch(batch, impl_->kv.limits);
  shapes::sampling(batch, sampling);
  check_sizes(batch, impl_->needs);
  Ops::Step step{*impl_, batch};
  step.rope_done.resize(impl_->needs.ropes.size());
  const Tensor logits = run(f, &step);
  impl_->sample_rows(logits, sampling);
}

void Backend::record(const Forward&) {}  // calling it costs little

std::vector<Sampled> Backend::collect() { return std::exchange(impl_->results, {}); }

const BackendInfo kBackendInfo = {
    .name = "cpu", .device_flag = nullptr, .beside_quantised = DType::kQ8_0};

}  // namespace llorch
