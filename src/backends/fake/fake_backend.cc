// A backend without arithmetic, for tests of what stands above it: the token after t is t + 1
// (modulo the vocabulary), shapes are checked as everywhere, and the kv blocks remember what was
// written where: a wrong slot or block table is an Error{kInternal}, and logits, draws and logprobs
// depend on all that the blocks say has led to a row. Knows no model.
//
// Like a device that is not waited for it takes two steps at a time: submit() copies, and collect()
// computes, by what the kv blocks hold once all that was asked for before has been done.
//
// Environment, read once by the constructor. Steps count from 1; a warm-up's count too.
//   LLORCH_FAKE_STEP_MS=n        every step takes n milliseconds
//   LLORCH_FAKE_GATE=path        every step first reads one byte from this FIFO
//   LLORCH_FAKE_FAIL_AT_STEP=n   collect() of step n throws Error{kDevice}
//   LLORCH_FAKE_OOM_AT_STEP=n    submit() of step n throws std::bad_alloc
//   LLORCH_FAKE_HANG_AT_STEP=n   collect() of step n never returns
//   LLORCH_FAKE_FREE_BYTES=n     memory that is free for kv blocks
//   LLORCH_FAKE_STEP_JOULES=n    there is a meter, and every step draws n joules
//   LLORCH_FAKE_WATTS=n          there is a meter, and n watts are drawn all the time beside that
//   LLORCH_FAKE_METER_JOULES=n   the meter moves by n joules, or a multiple of it, at a time
//   LLORCH_FAKE_STEPS_IN_FLIGHT=2  BackendInfo says 2, else 1; read when the process begins
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/os.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/sampling.h"
#include "ops/shapes.h"

namespace llorch {

template <>
struct Handle<TensorTag>::Impl {
  bool is_logits = false;
};
template <>
struct Handle<WeightTag>::Impl {
  std::string name;
};

namespace {

uint64_t number_from_environment(const char* key, uint64_t otherwise) {
  const char* text = std::getenv(key);
  if (text == nullptr) return otherwise;
  uint64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || stopped != end) {
    throw Error(ErrorCode::kDevice, std::string("[fake] ") + key + " is not a number: " + text);
  }
  return value;
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

File open_gate() {
  const char* path = std::getenv("LLORCH_FAKE_GATE");
  if (path == nullptr) return nullptr;
  // For reading and writing: so the open does not wait for a writer, and no end of file comes.
  File gate(std::fopen(path, "r+b"));
  if (!gate) throw Error(ErrorCode::kDevice, std::string("[fake] cannot open gate ") + path);
  std::setvbuf(gate.get(), nullptr, _IONBF, 0);
  return gate;
}

struct Knobs {
  uint64_t step_ms = number_from_environment("LLORCH_FAKE_STEP_MS", 0);
  uint64_t fail_at_step = number_from_environment("LLORCH_FAKE_FAIL_AT_STEP", 0);
  uint64_t oom_at_step = number_from_environment("LLORCH_FAKE_OOM_AT_STEP", 0);
  uint64_t hang_at_step = number_from_environment("LLORCH_FAKE_HANG_AT_STEP", 0);
  uint64_t free_bytes = number_from_environment("LLORCH_FAKE_FREE_BYTES", 0);
  uint64_t step_joules = number_from_environment("LLORCH_FAKE_STEP_JOULES", 0);
  uint64_t watts = number_from_environment("LLORCH_FAKE_WATTS", 0);
  uint64_t meter_joules = number_from_environment("LLORCH_FAKE_METER_JOULES", 0);
  File gate = open_gate();
};

uint64_t mixed(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// What a slot holds: a token, its position, the length that its key was turned for (0 if the rope
// asks for none, 1 for all that are long to longrope), and a hash of this and all before it.
struct Slot {
  int32_t token = -1, position = -1, turned_for = 0;
  uint64_t prefix = 0;

  uint64_t prefix_after(const Slot* before) const {
    return mixed(mixed(before ? before->prefix : 0, static_cast<uint64_t>(token)),
                 static_cast<uint64_t>(turned_for));
  }
};

// What a step's layers want of a kv group.
struct GroupUse {
  bool attended = false;
  int window = 1;              // the widest; 0 = all tokens
  const Rope* rope = nullptr;  // if one of them depends on the length

  void add(const Attention& a) {
    attended = true;
    if (window != 0) window = a.window == 0 ? 0 : std::max(window, a.window);
    if (a.rope && a.rope->trained > 0) rope = a.rope;
  }
  bool longrope() const { return rope && !rope->long_inv_freq.empty(); }
  int32_t turned_for(int32_t rope_len) const {
    if (rope == nullptr || rope_len <= rope->trained) return 0;
    return longrope() ? 1 : rope_len;
  }
};

// The kv blocks as history: each written slot knows the tokens that lead to it.
class KvHistory {
 public:
  void create(const KvSpec& spec, std::span<const int32_t> blocks) {
    per_block_ = static_cast<size_t>(spec.block_tokens);
    slots_.clear();
    for (const int32_t count : blocks) slots_.emplace_back(per_block_ * static_cast<size_t>(count));
  }

  void copy(size_t group, int32_t from, int32_t to) {
    const auto at = [&](int32_t block) {
      return slots_[group].begin() +
             static_cast<std::ptrdiff_t>(static_cast<size_t>(block) * per_block_);
    };
    std::copy_n(at(from), per_block_, at(to));
  }

  // Writes the rows of a sequence to a group, then checks that each slot from the first visible one
  // to the last row's holds its position, follows from the slot before it, and has a key that was
  // turned by the frequencies of this step.
  void step(const Batch& batch, size_t group, size_t sequence, const GroupUse& use) {
    int32_t first = INT32_MAX, last = -1, turned_for = 0;
    for (auto row = static_cast<size_t>(batch.query_start[sequence]);
         row < static_cast<size_t>(batch.query_start[sequence + 1]); ++row) {
      const int32_t slot = batch.slots_of(group)[row];
      if (slot == -1) continue;
      const int32_t position = batch.positions[row];
      const Slot* before = position > 0 ? find(batch, group, sequence, position - 1) : nullptr;
      turned_for = use.rope ? use.turned_for(batch.rope_len[row]) : 0;
      Slot written{batch.tokens[row], position, turned_for};
      written.prefix = written.prefix_after(before);
      slots_[group][static_cast<size_t>(slot)] = written;
      first = std::min(first, use.window > 0 ? std::max(0, position - use.window + 1) : 0);
      last = std::max(last, position);
    }
    for (int32_t position = first; position <= last; ++position) {
      verify(batch, group, sequence, position, position == first);
      if (use.longrope() && find(batch, group, sequence, position)->turned_for != turned_for) {
        fail(sequence, position, "its key was turned for a sequence of another length");
      }
    }
  }

  // Of all that led to a row, by a group's table.
  uint64_t prefix(const Batch& batch, size_t group, size_t sequence, int32_t position) const {
    const Slot* slot = find(batch, group, sequence, position);
    return slot ? slot->prefix : 0;
  }

 private:
  [[noreturn]] static void fail(size_t sequence, int32_t position, const std::string& what) {
    throw Error(ErrorCode::kInternal, "[attention] sequence " + std::to_string(sequence) +
                                          ", position " + std::to_string(position) + ": " + what);
  }

  const Slot* find(const Batch& batch, size_t group, size_t sequence, int32_t position) const {
    const auto index = static_cast<size_t>(position) / per_block_;
    const int32_t block = batch.table(group, sequence)[index];
    if (block < 0) return nullptr;
    return &slots_[group][static_cast<size_t>(block) * per_block_ +
                          static_cast<size_t>(position) % per_block_];
  }

  void verify(const Batch& batch, size_t group, size_t sequence, int32_t position,
              bool is_first) const {
    const auto fail = [&](const std::string& what) { KvHistory::fail(sequence, position, what); };
    const Slot* slot = find(batch, group, sequence, position);
    if (slot == nullptr) fail("no block");
    if (slot->position < 0) fail("its slot was never written");
    if (slot->position != position) {
      fail("its slot holds position " + std::to_string(slot->position));
    }
    const Slot* other = group > 0 ? find(batch, 0, sequence, position) : nullptr;
    if (other && (other->token != slot->token || other->position != position)) {
      fail("the kv groups hold different tokens");
    }
    const Slot* before =
        position > 0 && !is_first ? find(batch, group, sequence, position - 1) : nullptr;
    if (position > 0 && before == nullptr) return;
    if (slot->prefix != slot->prefix_after(before)) {
      fail("its slot was written for another sequence");
    }
  }

  size_t per_block_ = 1;
  std::vector<std::vector<Slot>> slots_;  // [G]
};

}  // namespace

// A step that has been submitted, in memory of its own.
struct QueuedStep {
  uint64_t number = 0;
  std::vector<int32_t> tokens, positions, slots, query_start, kv_len, blocks, logit_rows, rope_len;
  std::vector<int32_t> histories;  // of rows with a penalty, one after the other
  std::vector<Sampling> sampling;
  std::vector<GroupUse> uses;
  Batch batch;
  int32_t vocab = 0;
  struct Copy {
    size_t group;
    int32_t from, to;
  };
  std::vector<Copy> copies;  // asked for after it

  void take(const Batch& from, std::span<const Sampling> wanted) {
    const auto copy = [](std::vector<int32_t>& to, std::span<const int32_t> values) {
      to.assign(values.begin(), values.end());
      return std::span<const int32_t>(to);
    };
    batch = {.tokens = copy(tokens, from.tokens),
             .positions = copy(positions, from.positions),
             .slots = copy(slots, from.slots),
             .query_start = copy(query_start, from.query_start),
             .kv_len = copy(kv_len, from.kv_len),
             .blocks = copy(blocks, from.blocks),
             .logit_rows = copy(logit_rows, from.logit_rows),
             .blocks_per_sequence = from.blocks_per_sequence,
             .rope_len = copy(rope_len, from.rope_len)};
    sampling.assign(wanted.begin(), wanted.end());
    histories.clear();
    for (const Sampling& s : sampling) {
      if (has_penalty(s)) histories.insert(histories.end(), s.history.begin(), s.history.end());
    }
    size_t begin = 0;
    for (Sampling& s : sampling) {
      const size_t size = has_penalty(s) ? s.history.size() : 0;
      s.history = std::span(histories).subspan(begin, size);
      begin += size;
    }
    copies.clear();
  }

  static bool has_penalty(const Sampling& s) {
    return s.repetition_penalty != 0 && s.repetition_penalty != 1;
  }

  // The tokens of the step before are known now.
  void resolve(std::span<const int32_t> given) {
    for (int32_t& token : tokens) {
      if (token < 0) token = std::max(given[static_cast<size_t>(-1 - token)], 0);
    }
  }
};

// What the ops of a running step see.
struct Ops::Step {
  const Batch& batch;
  const shapes::KvLimits& kv;
  bool measuring = false;
  std::vector<GroupUse> uses = std::vector<GroupUse>(kv.spec.groups.size());
  uint64_t largest_bytes = 0;

  Tensor make(Shape shape, bool is_logits = false) {
    largest_bytes = std::max(largest_bytes, uint64_t(shape.rows) * uint64_t(shape.cols) * 4);
    return {std::make_shared<Tensor::Impl>(Tensor::Impl{is_logits}), shape, DType::kF32};
  }
};

namespace {

shapes::NamedShape named(const Weight& weight) {
  CHECK(weight.impl != nullptr);
  return {weight.shape, weight.impl->name};
}

shapes::NamedShape named(const Weight* weight) {
  return weight ? named(*weight) : shapes::NamedShape{};
}

shapes::NamedNorm named(const Norm& norm) {
  return {norm.kind, named(norm.gain), named(norm.bias)};
}

shapes::NamedNorm named(const Norm* norm) { return norm ? named(*norm) : shapes::NamedNorm{}; }

}  // namespace

Tensor Ops::embed(const Weight& table, float) {
  return step->make(shapes::embed(step->batch, named(table)));
}

Tensor Ops::norm(const Tensor& x, const Norm& n) {
  return step->make(shapes::norm(x.shape, named(n)));
}

Tensor Ops::add_norm(const Tensor& x, Tensor* sum, const Norm& n) {
  const Shape shape = shapes::add_norm(x.shape, sum->shape, named(n));
  *sum = step->make(shape);
  return step->make(shape);
}

void Ops::add(const Tensor& x, Tensor* sum) { *sum = step->make(shapes::add(x.shape, sum->shape)); }

Tensor Ops::linear(const Tensor& x, const Weight& w) {
  return step->make(shapes::linear(x.shape, named(w)));
}

Tensor Ops::attention(const Tensor& qkv, const Attention& a) {
  const auto q = named(a.q_norm), k = named(a.k_norm);
  const Shape shape =
      step->measuring ? shapes::attention_to_measure(qkv.shape, a, step->batch, step->kv.spec, q, k)
                      : shapes::attention(qkv.shape, a, step->batch, step->kv, q, k);
  step->uses[static_cast<size_t>(a.group)].add(a);
  return step->make(shape);
}

Tensor Ops::mlp(const Tensor& x, const Weight& gate_up, const Weight& down, Act) {
  return step->make(shapes::mlp(x.shape, named(gate_up), named(down)));
}

Tensor Ops::plain_mlp(const Tensor& x, const Weight& up, const Weight& down, Act) {
  return step->make(shapes::plain_mlp(x.shape, named(up), named(down)));
}

Tensor Ops::moe(const Tensor& x, const Moe& m) {
  return step->make(shapes::moe(x.shape, m, named));
}

Tensor Ops::logits(const Tensor& x, const Weight& head, float) {
  return step->make(shapes::logits(x.shape, step->batch, named(head)), true);
}

struct Backend::Impl {
  Knobs knobs;
  KvHistory history;
  shapes::KvLimits kv;
  std::atomic<uint64_t> weight_bytes{0}, kv_bytes{0};
  uint64_t step_number = 0;
  const std::chrono::steady_clock::time_point opened = std::chrono::steady_clock::now();
  std::atomic<uint64_t> joules_of_steps{0};
  // Those in flight, the oldest at `first`, and the wanted tokens of the last one computed.
  QueuedStep queue[2];
  size_t first = 0, in_flight = 0;
  std::vector<int32_t> given;
  bool after_failure = false;  // the step before was not computed: nothing can follow from it
  SamplingScratch scratch;
  std::vector<float> row;

  uint64_t free_bytes() const {
    if (knobs.free_bytes == 0) return os::free_memory_bytes();
    return knobs.free_bytes - std::min(knobs.free_bytes, kv_bytes.load());
  }

  std::optional<double> energy_j() const {
    if (knobs.step_joules == 0 && knobs.watts == 0) return std::nullopt;
    const std::chrono::duration<double> age = std::chrono::steady_clock::now() - opened;
    const double drawn = static_cast<double>(joules_of_steps.load()) +
                         static_cast<double>(knobs.watts) * age.count();
    if (knobs.meter_joules == 0) return drawn;
    const auto by = static_cast<double>(knobs.meter_joules);
    return std::floor(drawn / by) * by;
  }

  Shape run(const Forward& f, Ops::Step* step) {
    Ops ops;
    ops.step = step;
    const Tensor result = f(ops);
    if (!result || !result.impl->is_logits) {
      throw Error(ErrorCode::kInternal, "[submit] the step's result is not what logits() gave");
    }
    shapes::result(result.shape, step->batch);
    return result.shape;
  }

  // A hash of all that led to a row, itself included, by the tables of every group.
  uint64_t led_to(const Batch& batch, size_t row, const std::vector<GroupUse>& uses) const {
    const auto end = std::upper_bound(batch.query_start.begin(), batch.query_start.end(), row);
    const auto sequence = static_cast<size_t>(end - batch.query_start.begin()) - 1;
    uint64_t hash = static_cast<uint64_t>(batch.tokens[row]);
    for (size_t group = 0; group < uses.size(); ++group) {
      if (!uses[group].attended) continue;
      hash = mixed(hash, history.prefix(batch, group, sequence, batch.positions[row]));
    }
    return hash;
  }

  // `led_to` says what has led to the token.
  Sampled next_of(int32_t token, uint64_t led_to, int32_t vocab, const Sampling& sampling) {
    const int32_t next = static_cast<int32_t>((int64_t{token} + 1) % vocab);
    if (sampling.temperature <= 0 && !QueuedStep::has_penalty(sampling) && !sampling.keep_logits &&
        sampling.top_logprobs < 0) {
      Sampled result;
      result.token = next;
      return result;
    }
    row.resize(static_cast<size_t>(vocab));
    for (size_t id = 0; id < row.size(); ++id) {
      row[id] = static_cast<float>(mixed(led_to, id) >> 40) * 0x1p-24f;
    }
    row[static_cast<size_t>(next)] = 4;
    return sample(row, sampling, scratch);
  }

  QueuedStep& newest() { return queue[(first + in_flight - 1) % 2]; }

  std::vector<Sampled> compute(QueuedStep& step) {
    step.resolve(given);
    given.assign(step.sampling.size(), 0);
    const Batch& batch = step.batch;
    for (size_t group = 0; group < step.uses.size(); ++group) {
      if (!step.uses[group].attended) continue;
      for (size_t s = 0; s < batch.kv_len.size(); ++s) {
        history.step(batch, group, s, step.uses[group]);
      }
    }
    std::vector<Sampled> results;
    results.reserve(step.sampling.size());
    for (size_t i = 0; i < step.sampling.size(); ++i) {
      const auto row = static_cast<size_t>(batch.logit_rows[i]);
      results.push_back(
          next_of(batch.tokens[row], led_to(batch, row, step.uses), step.vocab, step.sampling[i]));
      given[i] = results.back().token;
    }
    return results;
  }

  // What LLORCH_FAKE_* asks of this step, in place of a device's time.
  void wait_as_told(uint64_t step_number) {
    if (knobs.gate && std::fgetc(knobs.gate.get()) == EOF) {
      throw Error(ErrorCode::kDevice, "[fake] the gate cannot be read");
    }
    if (step_number == knobs.fail_at_step) {
      throw Error(ErrorCode::kDevice,
                  "[fake] step " + std::to_string(step_number) + " fails as told");
    }
    while (step_number == knobs.hang_at_step) std::this_thread::sleep_for(std::chrono::hours(1));
    if (knobs.step_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(knobs.step_ms));
  }
};

Backend::Backend(const BackendOptions&) : impl_(std::make_unique<Impl>()) {}
Backend::~Backend() = default;

Device Backend::device() const {
  const uint64_t free_bytes = impl_->free_bytes();
  return {"fake", free_bytes + impl_->kv_bytes, free_bytes};
}

void Backend::verify_device() {}

Weight Backend::pack(std::span<const RawTensor> parts, DType type,
                     std::span<const RawTensor> bias) {
  const Shape shape = shapes::packed(parts, bias);
  const auto stored_as = [&](const RawTensor& part) {
    return shape.rows == 1 ? DType::kF32 : is_quantised(part.type) ? part.type : type;
  };
  for (const RawTensor& part : parts) {
    impl_->weight_bytes += uint64_t(part.shape.rows) * row_bytes(stored_as(part), shape.cols);
  }
  return {std::make_shared<Weight::Impl>(Weight::Impl{shapes::packed_name(parts)}), shape,
          stored_as(parts[0])};
}

uint64_t Backend::prepare(const Forward& f, const Batch& largest) {
  shapes::batch_to_measure(largest, impl_->kv.spec);
  Ops::Step step{.batch = largest, .kv = impl_->kv, .measuring = true};
  const Shape shape = impl_->run(f, &step);
  impl_->scratch.reserve(static_cast<size_t>(shape.cols));
  return step.largest_bytes;
}

uint64_t Backend::block_bytes(const KvSpec& spec, size_t group) {
  return uint64_t(spec.groups.at(group).layers) * 2 * uint64_t(spec.kv_heads) *
         uint64_t(spec.block_tokens) * row_bytes(spec.type, spec.head_dim);
}

void Backend::create_kv(const KvSpec& spec, std::span<const int32_t> blocks) {
  shapes::kv_spec(spec, blocks);
  impl_->kv_bytes = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < blocks.size(); ++i) bytes += block_bytes(spec, i) * uint64_t(blocks[i]);
  const uint64_t free = impl_->free_bytes();
  if (bytes > free) throw OutOfMemory("kv blocks", bytes, free);
  impl_->kv = {spec, {blocks.begin(), blocks.end()}};
  impl_->history.create(spec, blocks);
  impl_->kv_bytes = bytes;
}

void Backend::copy_block(size_t group, int32_t from, int32_t to) {
  shapes::copy_block(group, from, to, impl_->kv);
  if (impl_->in_flight > 0) {
    impl_->newest().copies.push_back({group, from, to});
  } else {
    impl_->history.copy(group, from, to);
  }
}

void Backend::submit(const Forward& f, const Batch& batch, std::span<const Sampling> sampling) {
  shapes::batch(batch, impl_->kv);
  shapes::sampling(batch, sampling);
  CHECK(impl_->in_flight < 2);
  const size_t wanted_before =
      impl_->in_flight > 0 ? impl_->newest().sampling.size() : impl_->given.size();
  if (static_cast<size_t>(batch.rows_before) > wanted_before) {
    throw Error(ErrorCode::kInternal, "[submit] rows of the step before; got " +
                                          std::to_string(batch.rows_before) + ", it wanted " +
                                          std::to_string(wanted_before));
  }
  Ops::Step step{.batch = batch, .kv = impl_->kv};
  const Shape shape = impl_->run(f, &step);
  if (++impl_->step_number == impl_->knobs.oom_at_step) throw std::bad_alloc();
  if (impl_->in_flight == 0) impl_->first = 0;
  QueuedStep& queued = impl_->queue[(impl_->first + impl_->in_flight) % 2];
  queued.take(batch, sampling);
  queued.number = impl_->step_number;
  queued.uses = std::move(step.uses);
  queued.vocab = shape.cols;
  ++impl_->in_flight;
}

std::vector<Sampled> Backend::collect() {
  if (impl_->in_flight == 0) return {};
  QueuedStep& step = impl_->queue[impl_->first];
  impl_->first = 1 - impl_->first;
  --impl_->in_flight;
  const bool has_base = !std::exchange(impl_->after_failure, false);
  impl_->after_failure = impl_->in_flight > 0;  // until this one is computed
  impl_->wait_as_told(step.number);
  impl_->joules_of_steps += impl_->knobs.step_joules;
  const auto make_copies = [&] {
    for (const auto& [group, from, to] : step.copies) impl_->history.copy(group, from, to);
  };
  try {
    std::vector<Sampled> results(has_base ? 0 : step.sampling.size());
    if (has_base) results = impl_->compute(step);
    impl_->after_failure = false;
    make_copies();
    return results;
  } catch (const std::bad_alloc&) {
    make_copies();
    throw;
  }
}

void Backend::record(const Forward&) {}

uint64_t Backend::weight_bytes() const { return impl_->weight_bytes; }

std::optional<double> Backend::energy_j() const { return impl_->energy_j(); }

namespace {

int steps_in_flight() {
  const char* text = std::getenv("LLORCH_FAKE_STEPS_IN_FLIGHT");
  return text != nullptr && std::string_view(text) == "2" ? 2 : 1;
}

}  // namespace

const BackendInfo kBackendInfo = {.name = "fake",
                                  .device_flag = nullptr,
                                  .computes = false,
                                  .steps_in_flight = steps_in_flight()};

}  // namespace llorch
