#include "backends/cuda/step_input.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "base/error.h"

namespace llorch::cuda {
namespace {

constexpr uint64_t kAlign = 256;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

uint64_t seen_words(int32_t vocab) { return (static_cast<uint64_t>(vocab) + 31) / 32; }

// Sets a bit for each token of the history.
void mark(std::span<const int32_t> history, int32_t vocab, uint32_t* bits) {
  std::fill_n(bits, seen_words(vocab), 0u);
  for (const int32_t token : history) {
    if (token < 0 || token >= vocab) {
      throw Error(ErrorCode::kInternal, "[sample] token " + std::to_string(token) + " of " +
                                            std::to_string(vocab) + " in the history");
    }
    bits[token / 32] |= 1u << (token % 32);
  }
}

bool has_penalty(const Sampling& s) {
  return s.repetition_penalty != 0 && s.repetition_penalty != 1;
}

RowSampling row_sampling(const Sampling& s, int32_t seen) {
  return {.temperature = s.temperature,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty,
          .top_k = s.top_k,
          .index = s.index,
          .seed = s.seed,
          .top_logprobs = std::min(s.top_logprobs, kMostTopLogprobs),
          .seen = seen};
}

}  // namespace

// Offsets in bytes of a step of some sizes: one piece of memory, one upload.
struct StepInput::Layout {
  uint64_t tokens, positions, rope_len, row_sequence, query_start, kv_len, logit_rows, sampling;
  uint64_t slots, blocks;  // of the first group
  uint64_t slots_bytes, blocks_bytes, bytes;

  Layout(const StepSizes& s, size_t groups) {
    uint64_t at = 0;
    const auto take = [&at](int64_t count, uint64_t size) {
      const uint64_t from = at;
      at += aligned(static_cast<uint64_t>(count) * size);
      return from;
    };
    sampling = take(s.logit_rows, sizeof(RowSampling));
    tokens = take(s.rows, 4);
    positions = take(s.rows, 4);
    rope_len = take(s.rows, 4);
    row_sequence = take(s.rows, 4);
    query_start = take(int64_t{s.sequences} + 1, 4);
    kv_len = take(s.sequences, 4);
    logit_rows = take(s.logit_rows, 4);
    slots_bytes = aligned(static_cast<uint64_t>(s.rows) * 4);
    blocks_bytes =
        aligned(static_cast<uint64_t>(s.sequences) * static_cast<uint64_t>(s.table_width) * 4);
    slots = at;
    blocks = slots + groups * slots_bytes;
    bytes = blocks + groups * blocks_bytes;
  }
};

namespace {

// A step's arrays in pinned memory.
struct Filler {
  std::byte* base;
  const Batch& batch;
  const StepSizes& sizes;

  int32_t* at(uint64_t offset) const { return reinterpret_cast<int32_t*>(base + offset); }

  void copy(uint64_t offset, std::span<const int32_t> values, int32_t count, int32_t fill) const {
    int32_t* const end = std::copy(values.begin(), values.end(), at(offset));
    std::fill(end, at(offset) + count, fill);
  }

  // Padding rows are those of the first padding sequence, or one of each.
  void sequences(uint64_t query_start, uint64_t row_sequence) const {
    const auto real = static_cast<int32_t>(batch.kv_len.size());
    const auto rows = static_cast<int32_t>(batch.tokens.size());
    int32_t* const start = at(query_start);
    std::copy(batch.query_start.begin(), batch.query_start.end(), start);
    for (int32_t s = real; s < sizes.sequences; ++s) {
      start[s + 1] = sizes.most_queries == 1 ? rows + s - real + 1 : sizes.rows;
    }
    int32_t* const owner = at(row_sequence);
    for (int32_t s = 0; s < sizes.sequences; ++s)
      std::fill(owner + start[s], owner + start[s + 1], s);
  }

  void tables(uint64_t offset, size_t group) const {
    const auto real = batch.kv_len.size();
    const auto width = static_cast<size_t>(sizes.table_width);
    int32_t* const out = at(offset);
    std::fill_n(out, static_cast<size_t>(sizes.sequences) * width, -1);
    for (size_t s = 0; s < real; ++s) {
      const auto table = batch.table(group, s);
      std::copy_n(table.begin(), std::min(table.size(), width), out + s * width);
    }
  }
};

void check_within(const char* what, int64_t got, int64_t most) {
  if (got <= most) return;
  throw Error(ErrorCode::kInternal, std::string("[submit] ") + what + "; got " +
                                        std::to_string(got) + ", prepared for " +
                                        std::to_string(most));
}

}  // namespace

StepInput::StepInput(const Gpu& gpu, const StepLimits& limits) : gpu_(gpu), limits_(limits) {
  const StepSizes most{.rows = limits.rows,
                       .sequences = limits.sequences,
                       .logit_rows = limits.logit_rows,
                       .table_width = limits.table_width};
  layout_ = std::make_unique<Layout>(most, limits.groups);
  const uint64_t seen =
      static_cast<uint64_t>(limits.logit_rows) * seen_words(limits.vocab) * sizeof(uint32_t);
  const uint64_t sampled = static_cast<uint64_t>(limits.logit_rows) * sizeof(SampledRow);
  device_ = DeviceMemory(gpu, layout_->bytes + seen, "step arrays");
  sampled_ = DeviceMemory(gpu, sampled, "sampled tokens");
  gpu.fill(sampled_.data(), 0, sampled);
  for (Slot& slot : slots_) {
    slot.up = PinnedMemory(gpu, layout_->bytes + seen);
    slot.down = PinnedMemory(gpu, sampled);
    slot.fetched = std::make_unique<Event>(gpu);
    slot.rows.reserve(static_cast<size_t>(limits.logit_rows));
  }
}

StepInput::~StepInput() = default;

void StepInput::send(const Batch& batch, std::span<const Sampling> sampling,
                     const StepSizes& sizes) {
  CHECK(in_flight_ < 2);
  check_within("tokens", sizes.rows, limits_.rows);
  check_within("sequences", sizes.sequences, limits_.sequences);
  check_within("logit rows", sizes.logit_rows, limits_.logit_rows);
  check_within("blocks of a sequence", sizes.table_width, limits_.table_width);
  const Layout layout(sizes, limits_.groups);
  std::byte* const base = slot().up.data();
  const Filler fill{base, batch, sizes};
  fill.copy(layout.tokens, batch.tokens, sizes.rows, 0);
  fill.copy(layout.positions, batch.positions, sizes.rows, 0);
  fill.copy(layout.rope_len, batch.rope_len, sizes.rows, 1);
  fill.copy(layout.kv_len, batch.kv_len, sizes.sequences, 0);
  fill.copy(layout.logit_rows, batch.logit_rows, sizes.logit_rows, 0);
  fill.sequences(layout.query_start, layout.row_sequence);
  for (size_t group = 0; group < limits_.groups; ++group) {
    fill.copy(layout.slots + group * layout.slots_bytes, batch.slots_of(group), sizes.rows, -1);
    fill.tables(layout.blocks + group * layout.blocks_bytes, group);
  }
  auto* const rows = reinterpret_cast<RowSampling*>(base + layout.sampling);
  const uint64_t words = seen_words(limits_.vocab);
  auto* const seen = reinterpret_cast<uint32_t*>(base + layout_->bytes);
  int32_t penalties = 0;
  for (size_t i = 0; i < sampling.size(); ++i) {
    const bool penalty = has_penalty(sampling[i]);
    if (penalty) {
      mark(sampling[i].history, limits_.vocab, seen + static_cast<uint64_t>(penalties) * words);
    }
    rows[i] = row_sampling(sampling[i], penalty ? penalties++ : -1);
  }
  std::fill(rows + sampling.size(), rows + sizes.logit_rows, row_sampling({.temperature = 0}, -1));
  gpu_.upload(device_.data(), base, layout.bytes);
  if (penalties > 0) {
    gpu_.upload(device_.data() + layout_->bytes, seen,
                static_cast<uint64_t>(penalties) * words * sizeof(uint32_t));
  }
}

StepView StepInput::view(const StepSizes& sizes) const {
  const Layout layout(sizes, limits_.groups);
  const auto at = [&](uint64_t offset) {
    return reinterpret_cast<int32_t*>(device_.data() + offset);
  };
  StepView view{.sizes = sizes,
                .tokens = at(layout.tokens),
                .positions = at(layout.positions),
                .rope_len = at(layout.rope_len),
                .row_sequence = at(layout.row_sequence),
                .query_start = at(layout.query_start),
                .kv_len = at(layout.kv_len),
                .logit_rows = at(layout.logit_rows)};
  for (size_t group = 0; group < limits_.groups; ++group) {
    view.slots.push_back(at(layout.slots + group * layout.slots_bytes));
    view.blocks.push_back(at(layout.blocks + group * layout.blocks_bytes));
  }
  view.sampling = reinterpret_cast<RowSampling*>(device_.data() + layout.sampling);
  view.seen = reinterpret_cast<uint32_t*>(device_.data() + layout_->bytes);
  view.sampled = sampled_.as<SampledRow>();
  return view;
}

void StepInput::fetch(const float* logits, std::span<const Sampling> sampling, int32_t vocab) {
  Slot& s = slot();
  s.rows.clear();
  s.vocab = vocab;
  uint64_t kept = 0;
  for (const Sampling& row : sampling) {
    s.rows.push_back({row.top_logprobs, row.keep_logits});
    kept += row.keep_logits;
  }
  gpu_.download(s.down.data(), sampled_.data(), sampling.size() * sizeof(SampledRow));
  const uint64_t row_bytes = static_cast<uint64_t>(vocab) * sizeof(float);
  if (kept * row_bytes > s.logits.bytes()) s.logits = PinnedMemory(gpu_, kept * row_bytes);
  std::byte* to = s.logits.data();
  for (size_t i = 0; i < sampling.size(); ++i) {
    if (!sampling[i].keep_logits) continue;
    gpu_.download(to, logits + i * static_cast<size_t>(vocab), row_bytes);
    to += row_bytes;
  }
  s.fetched->record(gpu_);
  next_ = 1 - next_;
  ++in_flight_;
}

std::vector<Sampled> StepInput::results() {
  if (in_flight_ == 0) return {};
  Slot& s = slots_[oldest_];
  oldest_ = 1 - oldest_;
  --in_flight_;
  s.fetched->wait();
  const auto* row = s.down.as<SampledRow>();
  const float* kept = s.logits.as<float>();
  std::vector<Sampled> results(s.rows.size());
  for (size_t i = 0; i < results.size(); ++i, ++row) {
    Sampled& result = results[i];
    result.token = row->token;
    if (s.rows[i].keep_logits) {
      result.logits.assign(kept, kept + s.vocab);
      kept += s.vocab;
    }
    if (row->token < 0 || s.rows[i].top_logprobs < 0) continue;
    result.logprob = row->logprob;
    const int32_t top = std::min({s.rows[i].top_logprobs, kMostTopLogprobs, s.vocab});
    for (int32_t k = 0; k < top; ++k) {
      result.top.push_back({row->top_token[k], row->top_logprob[k]});
    }
  }
  return results;
}

}  // namespace llorch::cuda
