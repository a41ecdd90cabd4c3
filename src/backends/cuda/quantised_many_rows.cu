// Quantised products with many tokens: a warp has 32 rows, whose codes it reads itself, one unit
// ahead; x comes through a ring in shared memory that all of the block fill. Slices follow each
// other, their sums so far kept in shared memory; or blocks have one each, and another kernel adds
// these up.
#include <algorithm>

#include "backends/cuda/launch.h"
#include "backends/cuda/quantised_parts.h"

namespace llorch::cuda {
namespace {

constexpr int kMostWarps = 8;
constexpr int kStages = 4;
constexpr int kTiles = 2;  // of a warp: a panel

struct ManyRowsParams {
  QuantisedParams product;
  int32_t panels = 0;
};

// What a block has in shared memory, one after the other.
template <DType type, int kTokenTiles>
struct Shared {
  static constexpr int kTokens = kTokenTiles * 8;
  static constexpr int kStageBytes = kTokens * kXRowBytes;
  static constexpr int kRing = kTableBytes<type>;
  static constexpr int kRowsOfX = kRing + kStages * kStageBytes;  // [kTokens] see x_row()
  static constexpr int kSumsOfX = kRowsOfX + kTokens * 4;  // [2 units][2 blocks][kTokens] floats
  static constexpr int kTotals = kSumsOfX + (kHasMinima<type> ? 4 * kTokens * 4 : 0);
  static constexpr int kTotalBytes = kTiles * kTokenTiles * 16;  // of a thread
  static size_t bytes(int32_t warps, bool totals) {
    return kTotals + (totals ? size_t{kTotalBytes} * kWarp * static_cast<size_t>(warps) : 0);
  }
};

template <DType type, int kTokenTiles>
class Block {
 public:
  using Form = Shared<type, kTokenTiles>;

  __device__ Block(const QuantisedParams& p, const WeightRows& w, int32_t panel, bool active)
      : p_(p),
        shared_(dynamic_shared<std::byte>()),
        lane_(threadIdx.x % kWarp),
        panel_(panel),
        active_(active),
        panel_codes_(w.values + panel * p.code_bytes),
        panel_scales_(w.scales + panel * p.scale_bytes),
        bias_(w.bias) {
    const uint32_t row = lane_ / 4;
    x_at_ = row * kXRowBytes + x_offset<type>(row, lane_ % 4);
  }

  // Units from `unit` on, up to `end`. Asks for the weights of the first.
  __device__ void begin(int32_t unit, int32_t end) {
    first_ = unit;
    end_ = end;
    load_weights(unit);
  }

  // Products with tokens `token` up to `end`, those of them that there is room for. Slices are
  // added, or, if `partial`, the one that there is goes to p.partial.
  __device__ void run(int32_t token, int32_t end, bool partial) {
    tokens_ = min(end - token, Form::kTokens);
    auto* const rows = reinterpret_cast<uint32_t*>(shared_ + Form::kRowsOfX);
    for (auto i = static_cast<int32_t>(threadIdx.x); i < Form::kTokens;
         i += static_cast<int32_t>(blockDim.x)) {  // what is not there copies the last one
      rows[i] = x_row(p_, token + min(i, tokens_ - 1));
    }
    sync_block();
    begin_x();
    clear(values_);
    int32_t slice_end = min(first_ + p_.slices.units, end_);
#pragma unroll 1
    for (int32_t unit = first_; unit < end_; ++unit) {
      copy_async_wait<kHasMinima<type> ? kStages - 3 : kStages - 2>();
      sync_block();  // the unit is there, with minima the next too, and nobody reads the one before
      if (unit + kStages - 1 < end_) copy_x(unit + kStages - 1);
      copy_async_commit();
      if (kHasMinima<type> && unit + 1 < end_) sum_x(unit + 1);
      if (active_) add_unit(unit);
      if (unit + 1 == slice_end && slice_end < end_) {
        if (active_) keep_total(unit < first_ + p_.slices.units);
        slice_end = min(slice_end + p_.slices.units, end_);
      }
    }
    copy_async_wait<0>();
    if (!active_) return;
    if (partial) return store_partial(token);
    if (end_ - first_ > p_.slices.units) add_total();
    store(token);
  }

 private:
  __device__ std::byte* stage(int32_t unit) const {
    return shared_ + Form::kRing + unit % kStages * Form::kStageBytes;
  }

  __device__ void load_weights(int32_t unit) {
    if (!active_) return;
    const std::byte* const codes = panel_codes_ + unit * (2 * Panel<type>::kCodeBytes);
    const std::byte* const scales = panel_scales_ + scales_at<type>(unit);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      codes_[i] = load_codes<type, FromGlobal>(codes + i * Panel<type>::kCodeBytes, lane_);
      scales_[i] = FromGlobal::load<uint2>(scales + i * kScaleBytes, lane_ / 4);
      if (unit % kHeaderUnits == 0) {
        load_header<type, FromGlobal>(scales - (2 - i) * Panel<type>::kHeaderBytes, lane_ / 4,
                                      headers_[i]);
      }
    }
  }

  __device__ void copy_x(int32_t unit) const {
    const auto* const rows = reinterpret_cast<const uint32_t*>(shared_ + Form::kRowsOfX);
    std::byte* const to = stage(unit);
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < Form::kTokens * kXChunks; i += blockDim.x) {
      const uint32_t row = i / kXChunks, chunk = i % kXChunks;
      const uint16_t* const from =
          p_.args.x.rounded + unit * kUnitColumns + (size_t{rows[row]} + chunk) * kChunkColumns;
      copy_async_16(to + row * kXRowBytes + (chunk ^ swizzle(row)) * 16, from);
    }
  }

  __device__ void begin_x() const {
#pragma unroll 1
    for (int32_t unit = first_; unit < first_ + kStages - 1; ++unit) {
      if (unit < end_) copy_x(unit);
      copy_async_commit();
    }
    if constexpr (kHasMinima<type>) {
      copy_async_wait<kStages - 2>();
      sync_block();
      sum_x(first_);
    }
  }

  // Sums of a unit's x by blocks, shared out among the warps. There after a barrier.
  __device__ void sum_x(int32_t unit) const {
    const uint32_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    auto* const sums =
        reinterpret_cast<float*>(shared_ + Form::kSumsOfX) + unit % 2 * (2 * Form::kTokens);
    for (uint32_t n = warp; n < kTokenTiles; n += warps) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        uint32_t x[2][2];
        const std::byte* const at = stage(unit) + x_offset_in(x_at_, b) + n * (8 * kXRowBytes);
        load_x<type>(at, at, x);
        const float2 both = sums_of_x(x);
        if (lane_ < 4) {
          reinterpret_cast<float2*>(sums + b * Form::kTokens + n * 8)[lane_] = both;
        }
      }
    }
  }

  __device__ void add_unit(int32_t unit) {
#pragma unroll 1  // else more is begun than there are registers for
    for (int b = 0; b < 2; ++b) {
      uint32_t a[kTiles][2][4];
      RowScales scales[kTiles][2];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const BlockCodes<type> block = block_codes<type>(codes_[i], b);
        fragment<type>(block, 0, shared_ + lane_ * 4, a[i][0]);
        fragment<type>(block, 1, shared_ + lane_ * 4, a[i][1]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          scales[i][h] = row_scales<type>(scales_[i], row_header<type>(headers_[i], h), b, h);
        }
      }
      // The registers are free; what comes is there when the block is done.
      if (b == 1 && unit + 1 < end_) load_weights(unit + 1);
      add_tokens(unit, b, a, scales);
    }
  }

  // Of token tile n the second mma starts when the first of the tile behind it has, and its sums
  // are added another tile later, so that nothing waits for an mma that has just begun.
  __device__ void add_tokens(int32_t unit, int b, const uint32_t (&a)[kTiles][2][4],
                             const RowScales (&scales)[kTiles][2]) {
    const std::byte* const first = stage(unit) + x_offset_in(x_at_, b);
    const std::byte* const second = stage(unit) + x_offset_in(x_at_, b, 1);
    const auto* const x_sums = reinterpret_cast<const float2*>(
        shared_ + Form::kSumsOfX + (unit % 2 * 2 + b) * (Form::kTokens * 4));
    uint32_t x[2][2][2];
    BlockSums<type> sums[3][kTiles];
    load_x<type>(first, second, x[0]);
#pragma unroll
    for (int n = 0; n < kTokenTiles + 2; ++n) {
      if (n < kTokenTiles) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) multiply<type>(a[i], x[n % 2], 0, sums[n % 3][i]);
      }
      if (n >= 1 && n <= kTokenTiles) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          multiply<type>(a[i], x[(n - 1) % 2], 1, sums[(n - 1) % 3][i]);
        }
      }
      if (n + 1 < kTokenTiles) {
        const int next = (n + 1) * (8 * kXRowBytes);
        load_x<type>(first + next, second + next, x[(n + 1) % 2]);
      }
      if (n < 2) continue;
      float2 x_sum = {};
      if constexpr (kHasMinima<type>) x_sum = x_sums[(n - 2) * 4 + lane_ % 4];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        add_block<type>(sums[(n - 2) % 3][i], scales[i], x_sum, values_[i][n - 2]);
      }
    }
  }

  // Of the thread's values k, four each.
  __device__ float4& total(int k) const {
    return reinterpret_cast<float4*>(
        shared_ + Form::kTotals)[static_cast<uint32_t>(k) * blockDim.x + threadIdx.x];
  }

  // A slice's sums go to the totals.
  __device__ void keep_total(bool first) {
    if (!first) add_total();
#pragma unroll
    for (int k = 0; k < kTiles * kTokenTiles; ++k) {
      const float(&v)[4] = values_[k / kTokenTiles][k % kTokenTiles];
      total(k) = make_float4(v[0], v[1], v[2], v[3]);
    }
    clear(values_);
  }

  __device__ void add_total() {
#pragma unroll
    for (int k = 0; k < kTiles * kTokenTiles; ++k) {
      float(&v)[4] = values_[k / kTokenTiles][k % kTokenTiles];
      const float4 before = total(k);
      v[0] = before.x + v[0];
      v[1] = before.y + v[1];
      v[2] = before.z + v[2];
      v[3] = before.w + v[3];
    }
  }

  // Calls body(token of the tile, the lane's four values) for those that there are.
  template <class Body>
  __device__ void for_tokens(const Body& body) const {
#pragma unroll
    for (int n = 0; n < 2 * kTokenTiles; ++n) {
      const int32_t token = n / 2 * 8 + static_cast<int32_t>(lane_) % 4 * 2 + n % 2;
      if (token >= tokens_) continue;
      float v[4] = {values_[0][n / 2][n % 2], values_[0][n / 2][2 + n % 2],
                    values_[1][n / 2][n % 2], values_[1][n / 2][2 + n % 2]};
      body(token, v);
    }
  }
  __device__ int32_t row() const {
    return panel_ * kPanelRows + static_cast<int32_t>(lane_) / 4 * 4;
  }

  __device__ void store(int32_t first) const {
    for_tokens(
        [&](int32_t token, float(&v)[4]) { store_rows(p_, bias_, first + token, row(), v); });
  }

  __device__ void store_partial(int32_t first) const {
    float* const to =
        p_.partial + int64_t{first_ / p_.slices.units} * p_.args.m * p_.partial_stride;
    for_tokens([&](int32_t token, float(&v)[4]) {
      *reinterpret_cast<float4*>(to + (first + token) * p_.partial_stride + row()) =
          make_float4(v[0], v[1], v[2], v[3]);
    });
  }

  const QuantisedParams& p_;
  std::byte* const shared_;
  const uint32_t lane_;
  const int32_t panel_;
  const bool active_;  // the warp has rows
  const std::byte* const panel_codes_;
  const std::byte* const panel_scales_;
  const float* const bias_;
  uint32_t x_at_;  // where this lane finds its first fragment in a stage
  int32_t first_ = 0, end_ = 0, tokens_ = 0;
  // Of the unit that comes next.
  LaneCodes<type> codes_[kTiles];
  uint2 scales_[kTiles];
  uint32_t headers_[kTiles][2] = {};
  float values_[kTiles][kTokenTiles][4];
};

// Blocks (x, y, z) have token tiles x, x + gridDim.x ..., panels y * warps and on, and expert z of
// those with rows, or slice z if partial, or everything.
template <DType type, int kTokenTiles>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1) many_rows(const ManyRowsParams params) {
  allow_next();
  const QuantisedParams& p = params.product;
  using Form = Shared<type, kTokenTiles>;
  const bool mixture = p.args.experts.count > 0, partial = p.partial != nullptr;
  const auto warps = static_cast<int32_t>(blockDim.x / kWarp);
  const int32_t panel =
      static_cast<int32_t>(blockIdx.y) * warps + static_cast<int32_t>(threadIdx.x / kWarp);
  const Work work = work_of(p.args, static_cast<int32_t>(blockIdx.z));
  int32_t begin = work.begin + static_cast<int32_t>(blockIdx.x) * Form::kTokens;
  if (begin >= work.end) return;
  if constexpr (kHasTable<type>) fill_table(dynamic_shared<std::byte>());
  Block<type, kTokenTiles> block(p, work.w, panel, panel < params.panels);
  const int32_t first = partial ? static_cast<int32_t>(blockIdx.z) * p.slices.units : 0;
  const int32_t last = partial ? min(first + p.slices.units, p.units) : p.units;
  for (; begin < work.end; begin += static_cast<int32_t>(gridDim.x) * Form::kTokens) {
    block.begin(first, last);
    if (!mixture) wait_for_previous();
    block.run(begin, work.end, partial);
    if (mixture) sync_block();  // nobody reads x any more
  }
}

constexpr int kAddThreads = 128;

// The slices of four rows of a token, in order.
__global__ void add_slices(const QuantisedParams p) {
  allow_next();
  wait_for_previous();
  const auto row = static_cast<int32_t>(blockIdx.x * kAddThreads + threadIdx.x) * 4;
  if (row >= p.args.w.rows) return;
  const auto token = static_cast<int32_t>(blockIdx.y);
  const float* at = p.partial + token * p.partial_stride + row;
  float v[4] = {};
  for (int32_t slice = 0; slice < p.slices.count; ++slice) {
    const float4 more = *reinterpret_cast<const float4*>(at);
    const float parts[4] = {more.x, more.y, more.z, more.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = slice == 0 ? parts[i] : v[i] + parts[i];
    at += p.args.m * p.partial_stride;
  }
  store_rows(p, p.args.w.bias, token, row, v);
}

// One way to cut a product into blocks.
struct Cut {
  int32_t tokens = 0, warps = 0;
  bool partial = false;  // blocks have a slice each
};

int64_t pieces(int64_t all, int64_t each) { return (all + each - 1) / each; }

// About how many nanoseconds it takes on an H200, whose multiprocessors run eight warps at a time;
// other devices have the same proportions.
double cost_of(const Gpu& gpu, const QuantisedParams& p, const Cut& cut, int32_t tokens) {
  int64_t blocks = pieces(panels_of(p.args.w.rows), cut.warps) * pieces(tokens, cut.tokens) *
                   std::max(most_busy_experts(p.args), 1);
  if (cut.partial) blocks *= p.slices.count;
  const auto rounds = static_cast<double>(
      pieces(blocks * cut.warps, int64_t{kMostWarps} * gpu.facts().multiprocessors));
  // What codes and scales cost is shared by the tokens, and as much as 48 of them.
  const double unit = 5.5 * (cut.tokens + 48);
  if (!cut.partial) return rounds * p.units * unit;
  const double launch = 2000, sums = 2e-3 * p.slices.count * tokens * p.args.w.rows;
  return rounds * p.slices.units * unit + sums + launch;
}

template <DType type, int kTokenTiles>
void launch_many_rows(const Gpu& gpu, QuantisedParams product, const Cut& cut, size_t bytes) {
  const ProductArgs& args = product.args;
  if (!cut.partial) product.partial = nullptr;
  const ManyRowsParams params{.product = product, .panels = panels_of(args.w.rows)};
  const int64_t row_tiles = pieces(params.panels, cut.warps);
  int64_t token_tiles = pieces(args.m, cut.tokens), depth = 1;
  if (args.experts.count > 0) {
    // Most blocks have one tile or none; more of them are only worth while there are few.
    depth = most_busy_experts(args);
    const int64_t wanted = int64_t{gpu.facts().multiprocessors} * 32;
    token_tiles = std::clamp(wanted / (row_tiles * depth), int64_t{1}, token_tiles);
  } else if (cut.partial) {
    depth = product.slices.count;
  }
  launch<many_rows<type, kTokenTiles>>(gpu,
                                       {.blocks_x = static_cast<uint32_t>(token_tiles),
                                        .blocks_y = static_cast<uint32_t>(row_tiles),
                                        .blocks_z = static_cast<uint32_t>(depth),
                                        .threads = static_cast<uint32_t>(cut.warps * kWarp),
                                        .shared_bytes = bytes},
                                       params);
  if (!cut.partial) return;
  const auto fours = pieces(args.w.rows, 4 * kAddThreads);
  launch<add_slices>(gpu,
                     {.blocks_x = static_cast<uint32_t>(fours),
                      .blocks_y = static_cast<uint32_t>(args.m),
                      .threads = kAddThreads},
                     product);
}

template <DType type>
class Chooser {
 public:
  Chooser(const Gpu& gpu, const QuantisedParams& product, int32_t tokens)
      : gpu_(gpu), product_(product), tokens_(tokens) {}

  void launch_best() {
    for (const int32_t warps : {kMostWarps, kMostWarps / 2}) {
      for (const bool partial : {false, true}) {
        if (partial && product_.partial == nullptr) continue;
        consider<8>({64, warps, partial});
        consider<4>({32, warps, partial});
      }
    }
    CHECK(launch_ != nullptr);
    launch_(gpu_, product_, best_, bytes_);
  }

 private:
  template <int kTokenTiles>
  void consider(const Cut& cut) {
    const bool totals = product_.slices.count > 1 && !cut.partial;
    const size_t bytes = Shared<type, kTokenTiles>::bytes(cut.warps, totals);
    const double cost = cost_of(gpu_, product_, cut, tokens_);
    if (bytes > most_shared_bytes(gpu_) || (launch_ && cost >= cost_)) return;
    launch_ = &launch_many_rows<type, kTokenTiles>;
    best_ = cut;
    bytes_ = bytes;
    cost_ = cost;
  }

  const Gpu& gpu_;
  const QuantisedParams& product_;
  const int32_t tokens_;
  void (*launch_)(const Gpu&, QuantisedParams, const Cut&, size_t) = nullptr;
  Cut best_;
  size_t bytes_ = 0;
  double cost_ = 0;
};

}  // namespace

void many_rows_product(const Gpu& gpu, const QuantisedParams& params, int32_t tokens) {
  with_type(params.args.w.type,
            [&](auto type) { Chooser<type>(gpu, params, tokens).launch_best(); });
}

}  // namespace llorch::cuda
