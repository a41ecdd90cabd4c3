// Selection without sorting, for a block and a row of logits: the token at which a sum of masses,
// in the order (logit descending, token ascending) or by token alone, reaches a wanted value.
// Masses are integers, so that no order of summation shows. For kernel sources only.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/warp_code.h"

namespace llorch::cuda {

// ---- sums and searches over a block; all of its threads call them

__device__ inline uint64_t shuffle(uint64_t v, int lane) {  // [warp]
  const uint32_t low = shuffle(static_cast<uint32_t>(v), lane);
  return uint64_t{shuffle(static_cast<uint32_t>(v >> 32), lane)} << 32 | low;
}

__device__ inline uint64_t block_total(uint64_t v) {
  __shared__ uint64_t sums[kWarp];
  const int lane = lane_of_thread();
  v = warp_prefix_sum(v);
  if (lane == kWarp - 1) sums[warp_of_thread()] = v;
  sync_block();
  v = warp_prefix_sum(lane < block_threads() / kWarp ? sums[lane] : 0);
  sync_block();
  return shuffle(v, kWarp - 1);
}

__device__ inline Best block_best(Best mine) {
  __shared__ Best bests[kWarp];
  const int lane = lane_of_thread();
  mine = warp_best(mine);
  if (lane == 0) bests[warp_of_thread()] = mine;
  sync_block();
  mine = warp_best(lane < block_threads() / kWarp ? bests[lane] : Best{0, -1});
  sync_block();
  return mine;
}
__device__ inline uint32_t block_max(uint32_t v) { return block_best({v, 0}).key; }

// Where a running sum reaches a value: the place, and the sum before it.
struct Crossing {
  int32_t at;
  uint64_t before;
};
// The first i < threads * each up to which value(i) sum to `wanted`, which is at least 1 and at
// most the sum of all. Thread t reads value(t * each) and those behind it.
template <class Value>
__device__ inline Crossing find_crossing(int32_t each, uint64_t wanted, Value value) {
  __shared__ uint64_t sums[kWarp];
  __shared__ Crossing found;
  const int lane = lane_of_thread(), warp = warp_of_thread();
  const int32_t first = static_cast<int32_t>(threadIdx.x) * each;
  uint64_t own = 0;
#pragma unroll 1
  for (int32_t i = 0; i < each; ++i) own += value(first + i);
  const uint64_t in_warp = warp_prefix_sum(own);
  if (lane == kWarp - 1) sums[warp] = in_warp;
  sync_block();
  const uint64_t warps = warp_prefix_sum(lane < block_threads() / kWarp ? sums[lane] : 0);
  const uint64_t up_to_last = shuffle(warps, (warp + kWarp - 1) % kWarp);
  uint64_t before = (warp == 0 ? 0 : up_to_last) + in_warp - own;
  if (before < wanted && wanted <= before + own) {
    for (int32_t i = first;; ++i) {
      const uint64_t next = before + value(i);
      if (next >= wanted) {
        found = {i, before};
        break;
      }
      before = next;
    }
  }
  sync_block();
  return found;  // nobody writes it again before all have come to the next call's barrier
}

// ---- the order of logits

constexpr uint32_t kNotFinite = 0xffffffffu;  // above the key of any number

struct alignas(8) Entry {
  float logit;
  int32_t token;  // -1: there is none
};

// A code is ascending with the rank, and tells logit and token. The bucket on top follows from the
// logit; it spreads logits over the first digit far better than a float's own leading bits.
constexpr int kTokenBits = 20, kKeyBits = 32, kBucketBits = 11;
constexpr int kRankBits = kBucketBits + kKeyBits + kTokenBits;
constexpr int kBins = 1 << kBucketBits;
constexpr float kBinsPerUnit = kBins / 40.0f;

__device__ inline uint64_t rank_of(const Entry& e, float high) {
  const float below = (high - e.logit) * kBinsPerUnit;
  const uint32_t bucket = below < kBins - 1 ? static_cast<uint32_t>(below) : uint32_t{kBins - 1};
  return uint64_t{bucket} << (kKeyBits + kTokenBits) | uint64_t{~key_of(e.logit)} << kTokenBits |
         static_cast<uint32_t>(e.token);
}
__device__ inline Entry entry_of_rank(uint64_t rank) {
  return {float_of_key(~static_cast<uint32_t>(rank >> kTokenBits)),
          static_cast<int32_t>(rank & ((1u << kTokenBits) - 1))};
}

// ---- masses

constexpr float kMassUnits = 0x1p43f;  // of weight 1; 2^20 of them fit into 63 bits

__device__ inline float weight_of(float logit, float high, float temperature) {
  // The difference first: neither a tiny temperature nor huge logits give inf - inf.
  return expf((logit - high) / temperature);
}
__device__ inline uint64_t mass_of(float weight) {
  return static_cast<uint64_t>(weight * kMassUnits);
}

// What counts how much.
struct Masses {
  float high, temperature;
  float min_p = 0;
  uint64_t last_rank = ~uint64_t{0};  // those behind it count nothing
  bool each_one = false;              // all count 1

  __device__ uint64_t of(const Entry& e) const {
    if (e.token < 0) return 0;
    if (each_one) return 1;
    if (rank_of(e, high) > last_rank) return 0;
    const float weight = weight_of(e.logit, high, temperature);
    return weight < min_p ? 0 : mass_of(weight);
  }
};

// ---- where entries are

// A row of logits, after the penalty if `seen` has bits.
struct RowLogits {
  const float* logits;
  const uint32_t* seen;
  float penalty;

  __device__ float penalised(float logit, int32_t token) const {
    if (seen == nullptr || (seen[token / 32] >> (token % 32) & 1) == 0) return logit;
    // A tiny penalty may overflow; an order among the overflowed would not mean anything.
    constexpr float kMost = 3.402823466e+38f;
    const float changed = logit < 0 ? logit * penalty : logit / penalty;
    return fminf(fmaxf(changed, -kMost), kMost);
  }
};

// A row, or a list of entries in shared memory.
struct Source {
  RowLogits row;
  const Entry* list;  // null: the row
  int32_t count;
};

// action(entry) by all threads of a warp together, with token -1 where there is none.
template <class Action>
__device__ inline void for_each(const Source& from, Action action) {
  constexpr int kBatch = 8;  // loads in flight
  const int32_t threads = block_threads();
  const float* const logits = from.list ? &from.list->logit : from.row.logits;
  const int32_t step = from.list ? static_cast<int32_t>(sizeof(Entry) / sizeof(float)) : 1;
  for (int32_t base = 0; base < from.count; base += kBatch * threads) {
    float logit[kBatch];
    const int32_t own = base + static_cast<int32_t>(threadIdx.x);
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int32_t i = own + j * threads;
      logit[j] = i < from.count ? logits[i * step] : 0.0f;
    }
#pragma unroll 1  // the action once: code that has to be fetched costs more than an index
    for (int j = 0; j < kBatch; ++j) {
      const int32_t i = own + j * threads;
      if (base + j * threads >= from.count) break;
      Entry e{logit[j], i < from.count ? i : -1};
      if (from.list && e.token >= 0) e.token = from.list[i].token;
      if (from.list == nullptr && e.token >= 0) e.logit = from.row.penalised(e.logit, i);
      action(e);
    }
  }
}

constexpr int kMostListed = 4096;  // entries of the list in shared memory

struct Workspace {
  Entry list[kMostListed];
  uint32_t low[kBins], high[kBins];  // of the masses of a digit
  uint64_t sums[2048];               // of chunks of a row
  uint64_t few_codes[kWarp], few_masses[kWarp];
  uint32_t count;
};

// store(slot, entry) for the entries that are wanted, in any order; returns how many there are.
template <class Wanted, class Store>
__device__ inline int32_t gather(const Source& from, Workspace* work, Wanted wanted, Store store) {
  sync_block();  // nobody reads the last count, or what is written now, any more
  if (threadIdx.x == 0) work->count = 0;
  sync_block();
  for_each(from, [&](const Entry& e) {
    const bool mine = e.token >= 0 && wanted(e);
    const uint32_t votes = ballot(mine);
    if (votes == 0) return;
    const int lane = lane_of_thread();
    uint32_t first = 0;
    if (lane == 0) first = add_atomically(&work->count, static_cast<uint32_t>(__popc(votes)));
    first = shuffle(first, 0);
    if (mine) store(first + static_cast<uint32_t>(__popc(votes & ((1u << lane) - 1))), e);
  });
  sync_block();
  return static_cast<int32_t>(work->count);
}

[[gnu::noinline]] __device__ inline uint64_t total_mass(const Source& from, const Masses& masses) {
  uint64_t sum = 0;
  for_each(from, [&](const Entry& e) { sum += masses.of(e); });
  return block_total(sum);
}

// ---- selection

// A bin's mass in two words that integer atomics can add to.
__device__ inline void add_mass(Workspace* work, uint32_t bin, uint64_t mass) {
  const auto low = static_cast<uint32_t>(mass);
  const uint32_t before = add_atomically(&work->low[bin], low);
  const uint32_t carry = before + low < before ? 1 : 0;
  const uint32_t high = static_cast<uint32_t>(mass >> 32) + carry;
  if (high != 0) add_atomically(&work->high[bin], high);
}

// Of the codes in few_codes, the first up to which masses sum to `wanted`.
__device__ inline uint64_t select_of_few(const Workspace& work, int32_t count, uint64_t wanted) {
  const int lane = lane_of_thread();
  const uint64_t code = work.few_codes[lane < count ? lane : 0];
  uint64_t before = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (work.few_codes[i] < code) before += work.few_masses[i];
  }
  const uint64_t own = lane < count ? work.few_masses[lane] : 0;
  const uint32_t votes = ballot(before < wanted && wanted <= before + own);
  return shuffle(code, __ffs(static_cast<int>(votes)) - 1);
}

// A radix search for a code from the top: bits above `unknown` are known.
struct Search {
  Source from;
  Masses masses;
  bool by_token;  // codes are tokens, else ranks
  int unknown;
  uint64_t known;

  __device__ uint64_t code_of(const Entry& e) const {
    return by_token ? static_cast<uint64_t>(e.token) : rank_of(e, masses.high);
  }
  __device__ bool possible(const Entry& e) const { return code_of(e) >> unknown == known; }
  __device__ bool counts(const Entry& e) const { return possible(e) && masses.of(e) > 0; }
};

// The digit, `bits` long, up to which masses of what is possible sum to `wanted`.
__device__ inline Crossing next_digit(const Search& search, int bits, uint64_t wanted,
                                      Workspace* work) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kBins; i += block_threads()) {
    work->low[i] = work->high[i] = 0;
  }
  sync_block();
  for_each(search.from, [&](const Entry& e) {
    const uint64_t mass = search.possible(e) ? search.masses.of(e) : 0;
    if (mass == 0) return;
    const uint64_t digits = search.code_of(e) >> (search.unknown - bits);
    add_mass(work, static_cast<uint32_t>(digits) & ((1u << bits) - 1), mass);
  });
  sync_block();
  return find_crossing(kBins / block_threads(), wanted, [work](int32_t i) {
    return (uint64_t{work->high[i]} << 32) + work->low[i];
  });
}

// The first code, by rank or by token alone, up to which masses sum to `wanted`: at least 1, at
// most all of them. A list ends the search once few are possible; of a row, those that are still
// possible become a list, in work->list, as soon as they fit.
[[gnu::noinline]] __device__ inline uint64_t select(const Source& from, const Masses& masses,
                                                    bool by_token, uint64_t wanted,
                                                    Workspace* work) {
  Search search{from, masses, by_token, by_token ? kTokenBits : kRankBits, 0};
  const auto counts = [&search](const Entry& e) { return search.counts(e); };
  while (search.unknown > 0) {
    if (search.from.list) {
      const auto keep = [&search, work](uint32_t slot, const Entry& e) {
        if (slot >= kWarp) return;
        work->few_codes[slot] = search.code_of(e);
        work->few_masses[slot] = search.masses.of(e);
      };
      const int32_t count = gather(search.from, work, counts, keep);
      if (count <= kWarp) return select_of_few(*work, count, wanted);
    }
    // A rank has digits of 11, 11, 11 and 10, 10, 10 bits, a token the last two.
    const int bits = search.unknown > 30 ? 11 : 10;
    const Crossing digit = next_digit(search, bits, wanted, work);
    search.known = search.known << bits | static_cast<uint64_t>(digit.at);
    search.unknown -= bits;
    wanted -= digit.before;
    if (search.from.list == nullptr && search.unknown > 0) {
      const auto keep = [work](uint32_t slot, const Entry& e) {
        if (slot < kMostListed) work->list[slot] = e;
      };
      const int32_t count = gather(search.from, work, counts, keep);
      if (count <= kMostListed) search.from = {from.row, work->list, count};
    }
  }
  return search.known;
}

}  // namespace llorch::cuda
