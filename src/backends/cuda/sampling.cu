// From rows of logits to tokens. Two kernels: the first reads the rows, a block for each part of
// one, and leaves of a part its best token, the sum of its weights and a list of its best tokens.
// The second, a block for each row, decides: most often from those alone, else (when the lists end
// before a cut) from the whole row.
//
// Everything that is summed is an integer, so a token follows from its row alone.
#include "backends/cuda/kernels.h"
#include "backends/cuda/sampling_select.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

// A row is cut into chunks of tokens, one for each warp of a part; a part's chunks are part_count
// apart, so that the frequent tokens, which have low numbers, are not all in one part.
constexpr int kChunk = 512, kPartWarps = 16;
constexpr int kPartListed = 128;  // tokens that a part lists at most
constexpr int kPartBins = 512;
constexpr float kPartBinsPerUnit = kPartBins / 40.0f;
constexpr int kRowThreads = 1024;

struct Part {
  Best best;         // after the penalty; kNotFinite if some logit is not: then nothing else is set
  uint32_t raw_key;  // the highest before it
  uint32_t unlisted;  // the highest key that the list leaves out; 0: none
  uint32_t listed;
  // Of weights beside the part's own best: before penalty and temperature, if logprobs are wanted;
  // and chunk by chunk, if a token is to be drawn.
  uint64_t raw_mass;
  uint64_t mass[kPartWarps];
};

struct SampleParams {
  const float* logits;
  const RowSampling* sampling;
  const uint32_t* seen;
  Part* parts;   // [m, part_count]
  Entry* lists;  // [m, part_count, kPartListed]
  SampledRow* out;
  int32_t vocab, chunk_count, part_count;
};

__device__ bool is_filtered(const RowSampling& how, int32_t vocab) {
  return (how.top_k > 0 && how.top_k < vocab) || how.top_p < 1 || how.min_p > 0;
}
__device__ bool is_penalised(const RowSampling& how) {
  return how.seen >= 0 && how.repetition_penalty != 0 && how.repetition_penalty != 1;
}
// Lists hold logits after the penalty.
__device__ bool wants_lists(const RowSampling& how, int32_t vocab) {
  if (how.temperature > 0 && is_filtered(how, vocab)) return true;
  return how.top_logprobs > 0 && !is_penalised(how);
}

__device__ RowLogits row_logits(const SampleParams& p, uint32_t row, const RowSampling& how) {
  const int64_t words = (p.vocab + 31) / 32;
  return {p.logits + int64_t{row} * p.vocab,
          is_penalised(how) ? p.seen + how.seen * words : nullptr, how.repetition_penalty};
}

// ---- the first kernel

// The logits of a warp's chunk, in shared memory: a lane has every 32nd.
struct OwnLogits {
  float* logits;         // the lane's first
  int32_t first, count;  // token of the first; of those from it on

  __device__ bool has(int j) const { return j * kWarp < count; }
  __device__ float& logit(int j) const { return logits[j * kWarp]; }
  __device__ int32_t token(int j) const { return first + j * kWarp; }

  __device__ Best best() const {
    Best best{0, -1};
    for (int j = 0; has(j); ++j) {
      const float v = logit(j);
      const bool finite = (bits_of(v) & 0x7f800000u) != 0x7f800000u;
      const uint32_t key = finite ? key_of(v) : kNotFinite;
      if (key > best.key) best = {key, token(j)};
    }
    return block_best(best);
  }
  __device__ uint64_t mass(float high, float temperature) const {
    uint64_t sum = 0;
#pragma unroll 2
    for (int j = 0; has(j); ++j) sum += mass_of(weight_of(logit(j), high, temperature));
    return sum;
  }
};

__device__ OwnLogits read_logits(const SampleParams& p, const RowLogits& row) {
  constexpr int kEach = kChunk / kWarp;
  const int32_t chunk = warp_of_thread() * p.part_count + static_cast<int32_t>(blockIdx.x);
  const int32_t first = chunk * kChunk + lane_of_thread();
  const int32_t end = chunk < p.chunk_count ? min((chunk + 1) * kChunk, p.vocab) : 0;
  const OwnLogits own{dynamic_shared<float>() + warp_of_thread() * kChunk + lane_of_thread(), first,
                      end - first};
  float logits[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) logits[j] = own.has(j) ? row.logits[own.token(j)] : 0.0f;
#pragma unroll
  for (int j = 0; j < kEach; ++j) own.logit(j) = logits[j];
  return own;
}

__device__ uint32_t part_bin(float logit, float high) {
  const float below = (high - logit) * kPartBinsPerUnit;
  return below < kPartBins - 1 ? static_cast<uint32_t>(below) : uint32_t{kPartBins - 1};
}

// Lists the tokens of the first bins that fit, in any order.
__device__ void list_best(const OwnLogits& own, Entry* list, Part* part) {
  __shared__ uint32_t bins[kPartBins], listed;
  const float high = float_of_key(part->best.key);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kPartBins; i += block_threads()) {
    bins[i] = 0;
  }
  if (threadIdx.x == 0) listed = 0;
  sync_block();
  uint64_t count = 0;
  for (int j = 0; own.has(j); ++j, ++count) {
    add_atomically(&bins[part_bin(own.logit(j), high)], 1);
  }
  uint32_t left_out = kPartBins;  // the first bin that does not fit
  if (block_total(count) > kPartListed) {
    const Crossing full = find_crossing(kPartBins / block_threads(), kPartListed + 1,
                                        [](int32_t i) { return uint64_t{bins[i]}; });
    left_out = static_cast<uint32_t>(full.at);
  }
  uint32_t unlisted = 0;
  for (int j = 0; own.has(j); ++j) {
    if (part_bin(own.logit(j), high) < left_out) {
      list[add_atomically(&listed, 1)] = {own.logit(j), own.token(j)};
    } else {
      unlisted = max(unlisted, key_of(own.logit(j)));
    }
  }
  part->unlisted = block_max(unlisted);
  part->listed = listed;  // block_max() has barriers
}

__global__ void __launch_bounds__(kPartWarps* kWarp) survey_parts(SampleParams p) {
  allow_next();
  wait_for_previous();
  const RowSampling how = p.sampling[blockIdx.y];
  const RowLogits row = row_logits(p, blockIdx.y, how);
  const OwnLogits own = read_logits(p, row);
  const uint64_t index = uint64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  Part* const out = p.parts + index;
  Part part;
  part.best = own.best();
  part.raw_key = part.unlisted = part.best.key;
  part.listed = 0;
  part.raw_mass = 0;
  if (part.best.key != kNotFinite) {
    if (how.top_logprobs >= 0) part.raw_mass = block_total(own.mass(float_of_key(part.raw_key), 1));
    if (row.seen) {
      for (int j = 0; own.has(j); ++j) own.logit(j) = row.penalised(own.logit(j), own.token(j));
      part.best = own.best();
    }
    if (how.temperature > 0) {
      const uint64_t mass = warp_prefix_sum(own.mass(float_of_key(part.best.key), how.temperature));
      if (lane_of_thread() == kWarp - 1) out->mass[warp_of_thread()] = mass;
    }
    if (wants_lists(how, p.vocab)) list_best(own, p.lists + index * kPartListed, &part);
  }
  if (threadIdx.x != 0) return;
  out->best = part.best;
  out->raw_key = part.raw_key;
  out->unlisted = part.unlisted;
  out->listed = part.listed;
  out->raw_mass = part.raw_mass;
}

// ---- the second kernel

// Philox4x32-10, as ops/sampling.h has it.
__device__ double uniform_draw(uint64_t seed, uint32_t index) {
  uint32_t c[4] = {index, 0, 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
#pragma unroll 1
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c[0] = static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0];
    c[1] = static_cast<uint32_t>(b);
    c[2] = static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1];
    c[3] = static_cast<uint32_t>(a);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return static_cast<double>((uint64_t{c[0]} << 32 | c[1]) >> 11) * 0x1p-53;
}

// The sum that the drawn token has to reach, of `total` >= 1: more than draw * total.
__device__ uint64_t wanted_of_draw(const RowSampling& how, uint64_t total) {
  const double target = uniform_draw(how.seed, how.index) * static_cast<double>(total);
  const auto below = static_cast<uint64_t>(target);
  return below < total ? below + 1 : total;  // rounding may have reached the total
}

// A row as the second kernel sees it.
struct Choice {
  const SampleParams* p;
  RowSampling how;
  RowLogits row;
  const Part* parts;
  const Entry* lists;
  Best best;
  Workspace* work;

  __device__ Source whole() const { return {row, nullptr, p->vocab}; }
  __device__ Masses masses() const { return {float_of_key(best.key), how.temperature}; }
};

// What a part's mass is beside `high` instead of its own best.
__device__ uint64_t scaled_mass(uint64_t mass, float own_high, float high, float temperature) {
  const double below = static_cast<double>(own_high) - static_cast<double>(high);
  const double scale = exp(below / static_cast<double>(temperature));
  return static_cast<uint64_t>(static_cast<double>(mass) * scale);
}

// The sum of work->sums, which some threads have just written.
__device__ uint64_t total_of_sums(const Choice& c) {
  sync_block();
  uint64_t sum = 0;
#pragma unroll 1
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < c.p->chunk_count; i += block_threads()) {
    sum += c.work->sums[i];
  }
  return block_total(sum);
}

// The masses of chunks, all tokens counted, as the first kernel has them. Returns their sum.
__device__ uint64_t sums_of_parts(const Choice& c) {
  const float high = float_of_key(c.best.key);
#pragma unroll 1
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < c.p->chunk_count; i += block_threads()) {
    const Part& part = c.parts[i % c.p->part_count];
    c.work->sums[i] = scaled_mass(part.mass[i / c.p->part_count], float_of_key(part.best.key), high,
                                  c.how.temperature);
  }
  return total_of_sums(c);
}

__device__ uint64_t mass_of_token(const Choice& c, const Masses& masses, int32_t token) {
  if (token >= c.p->vocab) return 0;
  return masses.of({c.row.penalised(c.row.logits[token], token), token});
}

// The same from the row, for masses that the first kernel did not know.
__device__ uint64_t sums_of_row(const Choice& c, const Masses& masses) {
#pragma unroll 1
  for (int32_t i = warp_of_thread(); i < c.p->chunk_count; i += block_threads() / kWarp) {
    uint64_t sum = 0;
#pragma unroll 4
    for (int32_t j = lane_of_thread(); j < kChunk; j += kWarp) {
      sum += mass_of_token(c, masses, i * kChunk + j);
    }
    sum = warp_prefix_sum(sum);
    if (lane_of_thread() == kWarp - 1) c.work->sums[i] = sum;
  }
  return total_of_sums(c);
}

// Draws a chunk by work->sums, which come to `total`, and in it a token. The best token where
// masses are too small to tell.
[[gnu::noinline]] __device__ int32_t draw_by_sums(const Choice& c, const Masses& masses,
                                                  uint64_t total) {
  if (total == 0) return c.best.index;
  const int32_t chunks = c.p->chunk_count, threads = block_threads();
  const uint64_t wanted = wanted_of_draw(c.how, total);
  const Crossing chunk = find_crossing((chunks + threads - 1) / threads, wanted,
                                       [&](int32_t i) { return i < chunks ? c.work->sums[i] : 0; });
  const int32_t first = chunk.at * kChunk;
  // All have read the sums, which make room for the masses of tokens.
  uint64_t sum = 0;
#pragma unroll 1
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kChunk; i += threads) {
    sum += c.work->sums[i] = mass_of_token(c, masses, first + i);
  }
  sum = block_total(sum);
  if (sum == 0) return c.best.index;
  // Where sums come from the parts, a chunk's own may be another in its last bits.
  const uint64_t rest = min(wanted - chunk.before, sum);
  return first + find_crossing((kChunk + threads - 1) / threads, rest, [&](int32_t i) {
                   return i < kChunk ? c.work->sums[i] : 0;
                 }).at;
}

// All tokens with keys above the result are in the list, which is as long as *count says; -1: it
// does not fit.
__device__ uint32_t load_lists(const Choice& c, int32_t* count) {
  const auto own = static_cast<int32_t>(threadIdx.x);
  const uint32_t unlisted = block_max(own < c.p->part_count ? c.parts[own].unlisted : 0);
  const int32_t places = c.p->part_count * kPartListed;
  if (own == 0) c.work->count = 0;
  sync_block();
#pragma unroll 1
  for (int32_t i = own; i < places; i += block_threads()) {
    if (static_cast<uint32_t>(i % kPartListed) >= c.parts[i / kPartListed].listed) continue;
    const Entry e = c.lists[i];
    if (key_of(e.logit) <= unlisted) continue;
    const uint32_t slot = add_atomically(&c.work->count, 1);
    if (slot < kMostListed) c.work->list[slot] = e;
  }
  sync_block();
  *count = static_cast<int32_t>(c.work->count);
  if (*count > kMostListed) *count = -1;
  return unlisted;
}

__device__ uint64_t wanted_of_top_p(float top_p, uint64_t total) {
  const auto wanted =
      static_cast<uint64_t>(ceil(static_cast<double>(top_p) * static_cast<double>(total)));
  return wanted > 1 ? min(wanted, total) : 1;
}

// Whether the list holds all that the filters may keep. *total: of all masses where top-p needs it.
__device__ bool list_suffices(const Choice& c, const Source& list, uint32_t unlisted,
                              uint64_t* total) {
  if (list.count < 0) return false;
  if (unlisted == 0) {
    *total = total_mass(list, c.masses());
    return true;
  }
  if (c.how.top_k > 0 && c.how.top_k < c.p->vocab) return list.count >= c.how.top_k;
  if (c.how.top_p < 1) {
    *total = sums_of_parts(c);
    return total_mass(list, c.masses()) >= wanted_of_top_p(c.how.top_p, *total);
  }
  const Masses masses = c.masses();
  return weight_of(float_of_key(unlisted), masses.high, masses.temperature) < c.how.min_p;
}

__device__ int32_t draw_filtered(const Choice& c) {
  Source from{c.row, c.work->list, 0};
  const uint32_t unlisted = load_lists(c, &from.count);
  uint64_t total = 0;
  if (!list_suffices(c, from, unlisted, &total)) {
    from = c.whole();
    total = 0;
  }
  Masses masses = c.masses();
  if (c.how.top_k > 0 && c.how.top_k < c.p->vocab) {
    Masses ones = masses;
    ones.each_one = true;
    masses.last_rank = select(from, ones, false, static_cast<uint64_t>(c.how.top_k), c.work);
    total = 0;
  }
  if (c.how.top_p < 1) {
    if (total == 0) total = total_mass(from, masses);
    masses.last_rank = select(from, masses, false, wanted_of_top_p(c.how.top_p, total), c.work);
  }
  masses.min_p = c.how.min_p;
  if (from.list == nullptr) return draw_by_sums(c, masses, sums_of_row(c, masses));
  total = total_mass(from, masses);
  if (total == 0) return c.best.index;
  return static_cast<int32_t>(select(from, masses, true, wanted_of_draw(c.how, total), c.work));
}

__device__ void write_logprobs(const Choice& c, int32_t token, SampledRow* out) {
  const auto own = static_cast<int32_t>(threadIdx.x);
  const bool has = own < c.p->part_count;
  const float high = float_of_key(block_max(has ? c.parts[own].raw_key : 0));
  const uint64_t sum = block_total(
      has ? scaled_mass(c.parts[own].raw_mass, float_of_key(c.parts[own].raw_key), high, 1) : 0);
  const double log_sum =
      log(static_cast<double>(sum) / double{kMassUnits}) + static_cast<double>(high);
  const auto logprob = [log_sum](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_sum);
  };
  if (own == 0) out->logprob = logprob(c.row.logits[token]);
  const int32_t most = min(kMostTopLogprobs, c.p->vocab);
  const int32_t wanted = min(c.how.top_logprobs, most);
  if (wanted == 0) return;
  Source from{{c.row.logits, nullptr, 0}, c.work->list, -1};
  if (wants_lists(c.how, c.p->vocab) && !is_penalised(c.how)) load_lists(c, &from.count);
  if (from.count < wanted) from = {from.row, nullptr, c.p->vocab};
  Masses ones{high, 1};
  ones.each_one = true;
  const uint64_t last = select(from, ones, false, static_cast<uint64_t>(wanted), c.work);
  const int32_t count = gather(
      from, c.work, [&](const Entry& e) { return rank_of(e, high) <= last; },
      [&c, high](uint32_t slot, const Entry& e) { c.work->few_codes[slot] = rank_of(e, high); });
  if (own >= count) return;
  const uint64_t rank = c.work->few_codes[own];
  int32_t place = 0;
  for (int32_t i = 0; i < count; ++i) place += c.work->few_codes[i] < rank ? 1 : 0;
  const Entry e = entry_of_rank(rank);
  out->top_token[place] = e.token;
  out->top_logprob[place] = logprob(e.logit);
}

__global__ void __launch_bounds__(kRowThreads) choose_tokens(SampleParams p) {
  allow_next();
  wait_for_previous();
  const uint64_t first_part = uint64_t{blockIdx.x} * static_cast<uint32_t>(p.part_count);
  Choice c{};
  c.p = &p;
  c.how = p.sampling[blockIdx.x];
  c.row = row_logits(p, blockIdx.x, c.how);
  c.parts = p.parts + first_part;
  c.lists = p.lists + first_part * kPartListed;
  c.work = dynamic_shared<Workspace>();
  const auto own = static_cast<int32_t>(threadIdx.x);
  c.best = block_best(own < p.part_count ? c.parts[own].best : Best{0, -1});
  SampledRow* const out = p.out + blockIdx.x;
  int32_t token = c.best.key == kNotFinite ? -1 : c.best.index;
  if (token >= 0 && c.how.temperature > 0) {
    token = is_filtered(c.how, p.vocab) ? draw_filtered(c)
                                        : draw_by_sums(c, c.masses(), sums_of_parts(c));
  }
  if (own == 0) {
    out->token = token;
    out->logprob = 0;
  }
  if (token >= 0 && c.how.top_logprobs >= 0) write_logprobs(c, token, out);
}

// ---- what both are started with

struct SampleShape {
  explicit SampleShape(int32_t vocab) {
    CHECK(vocab > 0 && vocab <= 1 << kTokenBits);
    chunks = (vocab + kChunk - 1) / kChunk;  // 2048 at most, for Workspace::sums
    while (part_warps < kPartWarps && part_warps < chunks) part_warps *= 2;
    parts = (chunks + part_warps - 1) / part_warps;
    // Eight tokens each, but not fewer threads than parts.
    while (row_threads < kRowThreads && row_threads * 8 < vocab) row_threads *= 2;
  }
  int32_t chunks, part_warps = 1, parts;
  int32_t row_threads = 2 * kWarp;
};

}  // namespace

uint64_t sample_scratch_bytes(int32_t m, int32_t vocab) {
  const auto parts = static_cast<uint64_t>(m) * static_cast<uint64_t>(SampleShape(vocab).parts);
  return parts * (sizeof(Part) + kPartListed * sizeof(Entry));
}

void sample(const Gpu& gpu, const SampleArgs& args) {
  const SampleShape shape(args.vocab);
  const int64_t parts = int64_t{args.m} * shape.parts;
  std::byte* const lists = args.scratch + parts * static_cast<int64_t>(sizeof(Part));
  const SampleParams params{.logits = args.logits,
                            .sampling = args.sampling,
                            .seen = args.seen,
                            .parts = reinterpret_cast<Part*>(args.scratch),
                            .lists = reinterpret_cast<Entry*>(lists),
                            .out = args.out,
                            .vocab = args.vocab,
                            .chunk_count = shape.chunks,
                            .part_count = shape.parts};
  const auto rows = static_cast<uint32_t>(args.m), warps = static_cast<uint32_t>(shape.part_warps);
  launch<survey_parts>(gpu,
                       {.blocks_x = static_cast<uint32_t>(shape.parts),
                        .blocks_y = rows,
                        .threads = warps * kWarp,
                        .shared_bytes = warps * kChunk * sizeof(float)},
                       params);
  launch<choose_tokens>(gpu,
                        {.blocks_x = rows,
                         .threads = static_cast<uint32_t>(shape.row_threads),
                         .shared_bytes = sizeof(Workspace)},
                        params);
}

}  // namespace llorch::cuda
