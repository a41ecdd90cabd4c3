// The CUDA backend's life: start, packing, kv blocks, scratch, steps. Knows no model.
#include <algorithm>
#include <limits>
#include <utility>

#include "backends/cuda/cuda_state.h"

namespace llorch {
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

// Arrays of a step of which only the sizes are known.
struct BlankBatch {
  explicit BlankBatch(const cuda::StepSizes& sizes, size_t groups)
      : zeros(static_cast<size_t>(sizes.rows)),
        ones(zeros.size(), 1),
        slots(groups * zeros.size(), -1),
        lengths(static_cast<size_t>(sizes.sequences), sizes.longest),
        wanted(static_cast<size_t>(sizes.logit_rows)) {
    starts.resize(lengths.size() + 1, sizes.rows);
    starts[0] = 0;
    batch = {.tokens = zeros,
             .positions = zeros,
             .slots = slots,
             .query_start = starts,
             .kv_len = lengths,
             .blocks = {},
             .logit_rows = wanted,
             .blocks_per_sequence = sizes.table_width,
             .rope_len = ones};
  }
  BlankBatch(const BlankBatch&) = delete;

  std::vector<int32_t> zeros, ones, slots, starts, lengths, wanted;
  Batch batch;
};

}  // namespace

cuda::State::State(const BackendOptions& options)
    : gpu(options.device_index), uploader(gpu), meter(gpu), products(gpu) {}

Backend::Backend(const BackendOptions& options) : impl_(std::make_unique<Impl>(options)) {}

Backend::~Backend() {
  if (!impl_) return;
  try {
    impl_->gpu.synchronize();  // nothing may be freed that still runs
  } catch (const Error&) {
    // The device is lost; its memory goes with the process.
  }
}

Device Backend::device() const {
  const cuda::GpuFacts& facts = impl_->gpu.facts();
  return {"cuda (" + facts.name + ")", facts.total_bytes, impl_->gpu.free_bytes()};
}

void Backend::verify_device() {
  constexpr int kCount = 4;
  const cuda::Gpu& gpu = impl_->gpu;
  const cuda::DeviceMemory memory(gpu, 3 * 256, "verification");
  auto* const a = memory.as<float>();
  float* const b = a + 64;
  float* const sum = b + 64;
  gpu.fill(a, 0, 2 * 256);
  gpu.fill(sum, 0xff, 256);
  cuda::add(gpu, a, b, {.values = sum, .cols = kCount, .stride = kCount}, 1);
  float got[kCount];
  gpu.download(got, sum, sizeof(got));
  gpu.synchronize();
  for (const float v : got) {
    if (v != 0) throw Error(ErrorCode::kDevice, "[cuda] the sum of zeros is not zero");
  }
}

Weight Backend::pack(std::span<const RawTensor> parts, DType type,
                     std::span<const RawTensor> bias) {
  const Shape shape = shapes::packed(parts, bias);
  auto impl = std::make_shared<Weight::Impl>();
  impl->held_bytes = impl_->weight_bytes;
  impl->name = shapes::packed_name(parts);
  impl->packed = cuda::pack_weight(impl_->gpu, impl_->uploader, parts, bias, shape, type);
  *impl_->weight_bytes += impl->packed.bytes();
  for (const cuda::PackedRows& part : impl->packed.rows) {
    const DType type = cuda::input_type(part.view.type);
    if (shape.rows > 1 && type != DType::kF32) impl_->rounds_to = type;
  }
  const DType stored = impl->packed.rows[0].view.type;
  return {std::move(impl), shape, stored};
}

uint64_t Backend::weight_bytes() const { return *impl_->weight_bytes; }

std::optional<double> Backend::energy_j() const { return impl_->meter.joules(); }

uint64_t Backend::block_bytes(const KvSpec& spec, size_t group) {
  return uint64_t(spec.groups.at(group).layers) * uint64_t(cuda::kv_block_bytes(spec));
}

void Backend::create_kv(const KvSpec& spec, std::span<const int32_t> blocks) {
  shapes::kv_spec(spec, blocks);
  impl_->gpu.synchronize();
  impl_->graphs.clear();
  impl_->input.reset();
  impl_->uploader.release();
  impl_->kv = {};
  for (size_t group = 0; group < blocks.size(); ++group) {
    const uint64_t bytes = block_bytes(spec, group) * uint64_t(blocks[group]);
    impl_->kv.memory.emplace_back(impl_->gpu, bytes, "kv blocks");
    impl_->gpu.fill(impl_->kv.memory.back().data(), 0, bytes);
  }
  impl_->kv.limits = {spec, {blocks.begin(), blocks.end()}};
}

void Backend::copy_block(size_t group, int32_t from, int32_t to) {
  const auto& limits = impl_->kv.limits;
  shapes::copy_block(group, from, to, limits);
  if (from == to) return;
  for (int i = 0; i < limits.spec.groups[group].layers; ++i) {
    const cuda::KvLayer layer = impl_->kv.layer(group, i);
    impl_->gpu.move(layer.blocks + to * layer.block_bytes, layer.blocks + from * layer.block_bytes,
                    static_cast<size_t>(layer.block_bytes));
  }
}

uint64_t Backend::prepare(const Forward& f, const Batch& largest) {
  shapes::batch_to_measure(largest, impl_->kv.limits.spec);
  impl_->gpu.synchronize();
  impl_->prepared = false;
  impl_->needs = {};
  impl_->needs.sizes = cuda::sizes_of(largest);
  impl_->ropes.clear();
  impl_->expert_tables.clear();
  impl_->graphs.clear();
  impl_->input.reset();
  impl_->arena.reset();
  Ops::Step step{*impl_, largest, {}, true};
  run(f, &step);
  impl_->arena.fix();
  const uint64_t bytes = impl_->allocate_scratch();
  impl_->prepared = true;
  return bytes;
}

uint64_t cuda::State::allocate_scratch() {
  const auto rows = static_cast<uint64_t>(needs.sizes.rows);
  const auto logit_rows = std::max(needs.sizes.logit_rows, 1);
  const auto pairs = rows * static_cast<uint64_t>(needs.experts_of_row);
  for (DeviceMemory* memory :
       {&arena_memory, &logits, &attention_scratch, &product_scratch, &sample_scratch, &routes}) {
    *memory = {};  // before the new is taken
  }
  uint64_t most_attention = 0;
  for (AttentionArgs& args : needs.attention) {
    args.step.rows = needs.sizes.rows;
    args.step.sequences = needs.sizes.rows + 1;
    args.step.longest = needs.sizes.longest;
    args.step.most_queries = needs.sizes.rows;
    most_attention = std::max(most_attention, least_attention_scratch_bytes(args));
    // What small steps need to spread their rows over the device.
    args.step.rows = std::min(needs.sizes.rows, kGraphRows);
    args.step.sequences = args.step.rows + 1;
    args.step.most_queries = args.step.rows;
    args.step.longest = std::max(needs.sizes.longest, kLeastLongest);
    most_attention = std::max(most_attention, attention_scratch_bytes(args));
  }
  needs.attention.clear();
  arena_memory = DeviceMemory(gpu, arena.peak() * 64 * rows, "activations");
  logits =
      DeviceMemory(gpu, static_cast<uint64_t>(logit_rows) * uint64_t(needs.vocab) * 4, "logits");
  attention_scratch = DeviceMemory(gpu, most_attention, "attention scratch");
  product_scratch = DeviceMemory(gpu, needs.product_scratch, "product scratch");
  sample_scratch =
      DeviceMemory(gpu, sample_scratch_bytes(logit_rows, needs.vocab), "sampling scratch");
  routes = DeviceMemory(gpu, (uint64_t(needs.experts) + 1 + 3 * pairs) * 4, "routes of experts");
  uint64_t bytes = arena_memory.bytes() + logits.bytes() + attention_scratch.bytes() +
                   product_scratch.bytes() + sample_scratch.bytes() + routes.bytes();
  for (const auto& table : ropes) bytes += allocate_rope(*table, rows);
  return bytes;
}

uint64_t cuda::State::allocate_rope(RopeTable& table, uint64_t rows) {
  const Rope& rope = *table.rope;
  std::vector<float> frequencies = rope.inv_freq;
  frequencies.insert(frequencies.end(), rope.long_inv_freq.begin(), rope.long_inv_freq.end());
  const uint64_t bytes = frequencies.size() * sizeof(float);
  table.frequencies = DeviceMemory(gpu, bytes, "rope frequencies");
  gpu.upload(table.frequencies.data(), frequencies.data(), bytes);
  gpu.synchronize();  // `frequencies` ends here
  table.table = DeviceMemory(gpu, rows * static_cast<uint64_t>(rope.dims) * 4, "rope tables");
  return table.frequencies.bytes() + table.table.bytes();
}

// Arrays of steps, once it is known how many blocks a sequence may have.
void cuda::State::allocate_input() {
  const KvSpec& spec = kv.limits.spec;
  const int32_t rows = needs.sizes.rows, per_block = std::max(spec.block_tokens, 1);
  const int32_t sequences = rows + 1;
  // Every sequence's table within a few megabytes, but for a whole context at least.
  constexpr int64_t kTables = 4 << 20;
  const int64_t groups = std::max<int64_t>(1, static_cast<int64_t>(spec.groups.size()));
  const int32_t all = kv.limits.blocks.empty() ? 0 : std::ranges::max(kv.limits.blocks);
  const auto context = (needs.sizes.longest + per_block - 1) / per_block;
  const auto roomy = std::min<int64_t>(all, kTables / (groups * sequences));
  const auto width = static_cast<int32_t>(std::max<int64_t>(context, roomy));
  input =
      std::make_unique<StepInput>(gpu, StepLimits{.rows = rows,
                                                  .sequences = sequences,
                                                  .logit_rows = std::max(needs.sizes.logit_rows, 1),
                                                  .vocab = needs.vocab,
                                                  .table_width = width,
                                                  .groups = spec.groups.size()});
}

// Tokens that a row may see: what prepare() was told, or what the tables have room for.
int32_t cuda::State::longest_row() const {
  const int32_t room = input->limits().table_width * kv.limits.spec.block_tokens;
  return needs.sizes.longest > 0 ? std::min(needs.sizes.longest, room) : room;
}

int32_t cuda::State::run_step(const Forward& f, Ops::Step* step) {
  resolve_tokens(gpu, step->view.tokens, step->view.sizes.rows, step->view.sampled);
  const Tensor result = run(f, step);
  const StepView& view = step->view;
  sample(gpu, {.logits = logits.as<float>(),
               .m = view.sizes.logit_rows,
               .vocab = result.shape.cols,
               .sampling = view.sampling,
               .seen = view.seen,
               .scratch = sample_scratch.data(),
               .out = view.sampled});
  return result.shape.cols;
}

void Backend::record(const Forward& f) {
  if (!impl_->prepared) throw Error(ErrorCode::kInternal, "[record] comes before prepare()");
  if (!impl_->input) impl_->allocate_input();
  const cuda::StepInput& input = *impl_->input;
  const auto& limits = impl_->kv.limits;
  for (const cuda::StepSizes& sizes :
       cuda::StepGraphs::buckets(input.limits(), limits.spec.block_tokens, impl_->longest_row())) {
    const BlankBatch blank(sizes, limits.spec.groups.size());
    Ops::Step step{*impl_, blank.batch, input.view(sizes)};
    step.recording = true;
    cuda::Graph::begin(impl_->gpu);
    try {
      impl_->recorded_vocab = impl_->run_step(f, &step);
    } catch (...) {
      cuda::Graph::abandon(impl_->gpu);
      throw;
    }
    impl_->graphs.add(sizes, cuda::Graph::end(impl_->gpu));
  }
}

// What the ops check, for a step whose ops are not called.
void cuda::State::check_replayed(const Batch& batch) const {
  for (const int32_t token : batch.tokens) {
    if (token >= needs.embed_vocab || token < -batch.rows_before) {
      throw Error(ErrorCode::kInternal, "[embed] token " + std::to_string(token) + " of " +
                                            std::to_string(needs.embed_vocab));
    }
  }
  for (const Attention& a : needs.attends) {
    const Shape qkv{static_cast<int32_t>(batch.tokens.size()),
                    (a.heads + 2 * a.kv_heads) * a.head_dim};
    shapes::attention(qkv, a, batch, kv.limits, {}, {});
  }
}

void Backend::submit(const Forward& f, const Batch& batch, std::span<const Sampling> sampling) {
  if (!impl_->prepared) throw Error(ErrorCode::kInternal, "[submit] comes before prepare()");
  shapes::batch(batch, impl_->kv.limits);
  shapes::sampling(batch, sampling);
  if (!impl_->input) impl_->allocate_input();
  cuda::StepInput& input = *impl_->input;
  cuda::StepSizes sizes = cuda::sizes_of(batch);
  const cuda::Graph* const graph = impl_->graphs.find(batch, &sizes);
  if (graph) impl_->check_replayed(batch);
  try {
    input.send(batch, sampling, sizes);
    int32_t vocab = impl_->recorded_vocab;
    if (graph) {
      graph->launch(impl_->gpu);
    } else {
      Ops::Step step{*impl_, batch, input.view(sizes)};
      vocab = impl_->run_step(f, &step);
    }
    input.fetch(impl_->logits.as<float>(), sampling, vocab);
  } catch (...) {
    impl_->gpu.synchronize();  // what was sent may still be read
    throw;
  }
}

std::vector<Sampled> Backend::collect() {
  return impl_->input ? impl_->input->results() : std::vector<Sampled>();
}

const BackendInfo kBackendInfo = {.name = "cuda",
                                  .device_flag = "cuda-device",
                                  .beside_bf16 = DType::kBF16,
                                  .beside_f16 = DType::kF16,
                                  .beside_quantised = DType::kBF16,
                                  .f8 = true,
                                  .steps_in_flight = 2,
                                  .step_tokens = 2048,
                                  .kv_percent = 85};

}  // namespace llorch
