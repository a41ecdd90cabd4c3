// Quantised products with few tokens, bound by how fast weights stream: a warp takes one or two
// tiles of 16 rows and a slice of the columns, through a ring of shared memory of its own that is
// always being filled; warps of a block that have the same rows add their slices up at the end.
#include "backends/cuda/launch.h"
#include "backends/cuda/quantised_parts.h"

namespace llorch::cuda {
namespace {

constexpr int kMostWarps = 8;

// What a stage of a warp's ring has: some units of its tiles, then x. The ring is deep enough for
// 4 KB or more to be on their way for each warp.
template <DType type, int kTiles, int kTokenTiles>
struct Stage {
  static constexpr int kStages = 3;
  static constexpr int kUnits = kTiles == 1 && Panel<type>::kBits < 8 ? kHeaderUnits : 2;
  static constexpr int kTokens = kTokenTiles * 8;
  // So many blocks have room in a multiprocessor's shared memory.
  static constexpr bool kSmall = Panel<type>::kCodeBytes % 512 == 0 && !kHasTable<type>;
  static constexpr int kBlocks = kTokenTiles > 1 ? 1 : kTiles == 1 && kSmall ? 3 : 2;
  static constexpr int kUnitBytes = kTiles * Panel<type>::kCodeBytes;  // of codes
  static constexpr int kUnitScaleBytes = kTiles * kScaleBytes;
  static constexpr int kScales = kUnits * kUnitBytes;  // begin here
  static constexpr int kHeader = kScales + kUnits * kUnitScaleBytes;
  static constexpr int kHeaderBytes = kTiles * Panel<type>::kHeaderBytes;
  static constexpr int kX = kHeader + kHeaderBytes;
  static constexpr int kXBytes = kUnits * kXRowBytes;  // of a row
  static int bytes(int32_t tokens) { return kX + std::min(tokens, kTokens) * kXBytes; }
  static constexpr uint32_t kRowBytes = kTokens * sizeof(uint32_t);  // behind the stages
};

// A warp's part of a product: its tiles' products with up to kTokens rows of x, over one slice.
template <DType type, int kTiles, int kTokenTiles>
class Stream {
 public:
  using Form = Stage<type, kTiles, kTokenTiles>;
  using Values = float[kTiles][kTokenTiles][4];

  // `table`: of this lane, see fragment(). The ring has stages of `stage_bytes`.
  __device__ Stream(std::byte* ring, uint32_t stage_bytes, const std::byte* table)
      : ring_(ring), table_(table), stage_bytes_(stage_bytes), lane_(threadIdx.x % kWarp) {}

  // Asks for the weights of the first stages of a slice.
  __device__ void begin_weights(const QuantisedParams& p, const WeightRows& w, int32_t tile,
                                int32_t slice) {
    const int32_t first = slice * p.slices.units;
    units_ = min(p.slices.units, p.units - first);
    const int64_t panel = tile / 2;
    codes_ = w.values + panel * p.code_bytes +
             (2 * first + tile % 2) * int64_t{Panel<type>::kCodeBytes} + lane_ * 16;
    // Scales are a few chunks of each unit, and headers behind them in the stage; a lane for each.
    const std::byte* const unit =
        w.scales + panel * p.scale_bytes + scales_at<type>(first) + tile % 2 * kScaleBytes;
    constexpr uint32_t kChunks = Form::kUnitScaleBytes / 16;
    scales_ = unit + lane_ / kChunks * (2 * kScaleBytes) + lane_ % kChunks * 16;
    if (Form::kHeaderBytes > 0 && lane_ >= Form::kUnits * kChunks) {
      scales_ = unit + (lane_ - Form::kUnits * kChunks) * 16 - 2 * Panel<type>::kHeaderBytes +
                tile % 2 * (Panel<type>::kHeaderBytes - kScaleBytes);
    }
    copy_weights(0, ring_);
    if (Form::kUnits < units_) copy_weights(Form::kUnits, ring_ + stage_bytes_);
  }

  // Tokens `first` up to `end`, those of them that there is room for.
  __device__ void begin_x(const QuantisedParams& p, int32_t first, int32_t end, int32_t column) {
    tokens_ = min(end - first, Form::kTokens);
    x_ = reinterpret_cast<const std::byte*>(p.args.x.rounded + column) + lane_ % kRowChunks * 16;
    const auto lane = static_cast<int32_t>(lane_);
    if (lane < tokens_) x_rows()[lane] = x_row(p, first + lane);
    sync_warp();
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {  // tokens that are not there are the last one's copies
      const auto row = static_cast<uint32_t>(min(n * 8 + static_cast<int>(lane_ / 4), tokens_ - 1));
      x_at_[n] = Form::kX + row * Form::kXBytes;
      x_within_[n] = x_offset<type>(row, lane_ % 4);
    }
    copy_x(0, ring_);
    copy_async_commit();
    if (Form::kUnits < units_) copy_x(Form::kUnits, ring_ + stage_bytes_);
    copy_async_commit();
  }

  __device__ void run(Values& values) {
    static_assert(Form::kStages == 3);
    std::byte *now = ring_, *last = ring_ + 2 * stage_bytes_;
    std::byte* const end = last;
#pragma unroll 1
    for (int32_t unit = 0; unit < units_; unit += Form::kUnits) {
      copy_async_wait<1>();
      sync_warp();  // the stage is there, and nobody reads the last one
      const int32_t ahead = unit + 2 * Form::kUnits;
      if (ahead < units_) {
        copy_weights(ahead, last);
        copy_x(ahead, last);
      }
      copy_async_commit();
      if (Form::kHeaderBytes > 0 && unit % kHeaderUnits == 0) read_headers(now);
      if (is_whole(unit)) {
#pragma unroll
        for (int k = 0; k < Form::kUnits; ++k) add_unit(now, k, values);
      } else {
#pragma unroll 1
        for (int k = 0; unit + k < units_; ++k) add_unit(now, k, values);
      }
      last = now;
      now = now == end ? ring_ : now + stage_bytes_;
    }
    copy_async_wait<0>();
    sync_warp();
  }

 private:
  static constexpr int kRowChunks = Form::kUnits * kXChunks;  // of x
  static constexpr int kCopies = Form::kTokens * kRowChunks / kWarp;

  // Where its rows of x begin, see x_row(); behind the stages.
  __device__ uint32_t* x_rows() const {
    return reinterpret_cast<uint32_t*>(ring_ + Form::kStages * stage_bytes_);
  }

  // Whether the stage that begins with `unit` has all of its units. With headers each has.
  __device__ bool is_whole(int32_t unit) const {
    return Form::kHeaderBytes > 0 || unit + Form::kUnits <= units_;
  }

  // The stage that begins with `unit`, which follows those before.
  __device__ void copy_weights(int32_t unit, std::byte* stage) {
    constexpr int kScaleChunks = Form::kUnits * Form::kUnitScaleBytes / 16;
    constexpr int kHeaderChunks = Form::kHeaderBytes / 16;
    std::byte* const to = stage + lane_ * 16;
    int chunks = kScaleChunks;
    if (is_whole(unit)) {
#pragma unroll
      for (int k = 0; k < Form::kUnits; ++k) copy_codes(k, to);
      if (unit % kHeaderUnits == 0) chunks += kHeaderChunks;
    } else {
#pragma unroll 1
      for (int k = 0; unit + k < units_; ++k) copy_codes(k, to);
      chunks = (units_ - unit) * (Form::kUnitScaleBytes / 16);
    }
    if (static_cast<int>(lane_) < chunks) copy_async_16(to + Form::kScales, scales_);
    codes_ += Form::kUnits * (2 * Panel<type>::kCodeBytes);
    scales_ += Form::kUnits * (2 * kScaleBytes);
    if (kHeaderChunks > 0 && (unit + Form::kUnits) % kHeaderUnits == 0) {
      scales_ += 2 * Panel<type>::kHeaderBytes;
    }
  }

  __device__ void copy_codes(int k, std::byte* to) const {
    constexpr int kChunks = Form::kUnitBytes / 16, kEach = static_cast<int>(kWarp);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; chunk += kEach) {
      if (chunk + kEach <= kChunks || static_cast<int>(lane_) < kChunks - chunk) {
        copy_async_16(to + k * Form::kUnitBytes + chunk * 16,
                      codes_ + k * (2 * Panel<type>::kCodeBytes) + chunk * 16);
      }
    }
  }

  __device__ void copy_x(int32_t unit, std::byte* stage) {
    constexpr int kEach = kWarp / kRowChunks;  // rows at a time
    const uint32_t chunk = lane_ % kRowChunks, row = lane_ / kRowChunks;
    const bool there = is_whole(unit) || unit + static_cast<int32_t>(chunk / kXChunks) < units_;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i * kEach >= tokens_) break;
      const uint32_t token = static_cast<uint32_t>(i * kEach) + row;
      if (there && (kEach == 1 || static_cast<int32_t>(token) < tokens_)) {
        copy_async_16_cached(
            stage + Form::kX + token * Form::kXBytes + (chunk ^ swizzle(token)) * 16,
            x_ + size_t{x_rows()[token]} * 16);
      }
    }
    x_ += Form::kXBytes;
  }

  __device__ void read_headers(const std::byte* stage) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint32_t header[2] = {};
      load_header<type, FromShared>(stage + Form::kHeader + i * Panel<type>::kHeaderBytes,
                                    lane_ / 4, header);
      headers_[i][0] = row_header<type>(header, 0);
      headers_[i][1] = row_header<type>(header, 1);
    }
  }

  // Unit k of the stage.
  __device__ void add_unit(const std::byte* stage, int k, Values& values) const {
    LaneCodes<type> codes[kTiles];
    uint2 scales[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      codes[i] = load_codes<type, FromShared>(
          stage + k * Form::kUnitBytes + i * Panel<type>::kCodeBytes, lane_);
      scales[i] = FromShared::load<uint2>(
          stage + Form::kScales + k * Form::kUnitScaleBytes + i * kScaleBytes, lane_ / 4);
    }
#pragma unroll
    for (int b = 0; b < 2; ++b) add_block_of(stage + k * kXRowBytes, codes, scales, b, values);
  }

  __device__ void add_block_of(const std::byte* stage, const LaneCodes<type> (&codes)[kTiles],
                               const uint2 (&unit_scales)[kTiles], int b, Values& values) const {
    uint32_t x[kTokenTiles][2][2], a[kTiles][2][4];
    float2 x_sums[kTokenTiles] = {};
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const std::byte* const row = stage + x_at_[n];
      load_x<type>(row + x_offset_in(x_within_[n], b), row + x_offset_in(x_within_[n], b, 1), x[n]);
      if constexpr (kHasMinima<type>) x_sums[n] = sums_of_x(x[n]);
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const BlockCodes<type> block = block_codes<type>(codes[i], b);
      fragment<type>(block, 0, table_, a[i][0]);
      fragment<type>(block, 1, table_, a[i][1]);
    }
    BlockSums<type> sums[kTiles][kTokenTiles];
#pragma unroll
    for (int k = 0; k < 2 * kTiles * kTokenTiles; ++k) {  // independent ones follow each other
      const int i = k / kTokenTiles % kTiles, n = k % kTokenTiles;
      multiply<type>(a[i], x[n], k / (kTiles * kTokenTiles), sums[i][n]);
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const RowScales scales[2] = {row_scales<type>(unit_scales[i], headers_[i][0], b, 0),
                                   row_scales<type>(unit_scales[i], headers_[i][1], b, 1)};
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        add_block<type>(sums[i][n], scales, x_sums[n], values[i][n]);
      }
    }
  }

  std::byte* const ring_;
  const std::byte* const table_;
  const uint32_t stage_bytes_, lane_;
  int32_t units_ = 0, tokens_ = 0;
  // What this lane copies of the stage that comes next.
  const std::byte* codes_ = nullptr;
  const std::byte* scales_ = nullptr;
  const std::byte* x_ = nullptr;  // row 0
  // Where it finds its rows of x in a stage, and in them its part of the first fragment.
  uint32_t x_at_[kTokenTiles], x_within_[kTokenTiles];
  RowHeader headers_[kTiles][2] = {};
};

struct FewRowsParams {
  QuantisedParams product;
  int32_t tiles = 0;   // of all rows
  int32_t places = 0;  // of a block: warps over slices
  uint32_t stage_bytes = 0;
};

// The slices of a place's warps, in order, in those of its first. All of the block call it.
template <int kTiles, int kTokenTiles>
__device__ inline void add_slices(std::byte* ring, uint32_t ring_bytes, int32_t slice,
                                  const Slices& slices, float (&values)[kTiles][kTokenTiles][4]) {
  if (slices.count == 1) return;
  const uint32_t lane = threadIdx.x % kWarp;
  if (slice > 0) {
#pragma unroll
    for (int k = 0; k < kTiles * kTokenTiles; ++k) {
      const float(&v)[4] = values[k / kTokenTiles][k % kTokenTiles];
      reinterpret_cast<float4*>(ring)[k * kWarp + static_cast<int>(lane)] =
          make_float4(v[0], v[1], v[2], v[3]);
    }
  }
  sync_block();
  if (slice > 0) return;
#pragma unroll 1
  for (int32_t s = 1; s < slices.count; ++s) {
    const auto* const other =
        reinterpret_cast<const float4*>(ring + static_cast<uint32_t>(s) * ring_bytes);
#pragma unroll
    for (int k = 0; k < kTiles * kTokenTiles; ++k) {
      float(&v)[4] = values[k / kTokenTiles][k % kTokenTiles];
      const float4 more = other[k * kWarp + static_cast<int>(lane)];
      v[0] = v[0] + more.x;
      v[1] = v[1] + more.y;
      v[2] = v[2] + more.z;
      v[3] = v[3] + more.w;
    }
  }
}

template <int kTiles, int kTokenTiles>
__device__ inline void store(const QuantisedParams& p, const float* bias, int32_t tile,
                             int32_t first, int32_t end,
                             const float (&values)[kTiles][kTokenTiles][4]) {
  const auto lane = static_cast<int32_t>(threadIdx.x % kWarp);
  const int32_t row = tile / 2 * kPanelRows + lane / 4 * 4 + tile % 2 * 2;
#pragma unroll
  for (int n = 0; n < 2 * kTokenTiles; ++n) {
    const int32_t token = first + n / 2 * 8 + lane % 4 * 2 + n % 2;
    if (token >= end) continue;
    float v[2 * kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      v[2 * i] = values[i][n / 2][n % 2];
      v[2 * i + 1] = values[i][n / 2][2 + n % 2];
    }
    store_rows(p, bias, token, row, v);
  }
}

// Blocks (x, y) have `places` of tiles each, of expert y of those with rows, if there are
// experts.
template <DType type, int kTiles, int kTokenTiles>
__global__ void __launch_bounds__(kMostWarps* kWarp, (Stage<type, kTiles, kTokenTiles>::kBlocks))
    few_rows(const FewRowsParams p) {
  allow_next();
  using Form = Stage<type, kTiles, kTokenTiles>;
  const ProductArgs& args = p.product.args;
  const Slices& slices = p.product.slices;
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const auto slice = static_cast<int32_t>(warp) % slices.count,
             place = static_cast<int32_t>(warp) / slices.count;
  const int32_t tile = (static_cast<int32_t>(blockIdx.x) * p.places + place) * kTiles;
  const bool active = tile < p.tiles;
  const bool mixture = args.experts.count > 0;
  auto* const shared = dynamic_shared<std::byte>();
  const uint32_t ring_bytes = p.stage_bytes * Form::kStages + Form::kRowBytes;
  std::byte* const ring = shared + kTableBytes<type> + warp * ring_bytes;
  const Work work = work_of(args, static_cast<int32_t>(blockIdx.y));
  if (work.begin == work.end) return;
  if constexpr (kHasTable<type>) {
    fill_table(shared);
    sync_block();
  }
  Stream<type, kTiles, kTokenTiles> stream(ring, p.stage_bytes, shared + lane * 4);
#pragma unroll 1
  for (int32_t first = work.begin; first < work.end; first += Form::kTokens) {
    if (active) stream.begin_weights(p.product, work.w, tile, slice);
    if (!mixture) wait_for_previous();
    float values[kTiles][kTokenTiles][4];
    clear(values);
    if (active) {
      stream.begin_x(p.product, first, work.end, slice * slices.units * kUnitColumns);
      stream.run(values);
    }
    add_slices(ring, ring_bytes, slice, slices, values);
    if (active && slice == 0) store(p.product, work.w.bias, tile, first, work.end, values);
    if (mixture) sync_block();  // nobody reads the rings any more
  }
}

template <DType type, int kTiles, int kTokenTiles>
bool launch_few_rows(const Gpu& gpu, const QuantisedParams& product) {
  using Form = Stage<type, kTiles, kTokenTiles>;
  const ProductArgs& args = product.args;
  FewRowsParams params{.product = product, .tiles = 2 * panels_of(args.w.rows)};
  params.places = kMostWarps / product.slices.count;
  params.stage_bytes = static_cast<uint32_t>(Form::bytes(args.m));
  const int32_t warps = params.places * product.slices.count;
  const int32_t rows = params.tiles / kTiles;
  const LaunchShape shape{
      .blocks_x = static_cast<uint32_t>((rows + params.places - 1) / params.places),
      .blocks_y = static_cast<uint32_t>(std::max(most_busy_experts(args), 1)),
      .threads = static_cast<uint32_t>(warps * kWarp),
      .shared_bytes = size_t{kTableBytes<type>} +
                      (size_t{params.stage_bytes} * Form::kStages + Form::kRowBytes) *
                          static_cast<size_t>(warps)};
  if (shape.shared_bytes > most_shared_bytes(gpu)) return false;
  launch<few_rows<type, kTiles, kTokenTiles>>(gpu, shape, params);
  return true;
}

}  // namespace

bool few_rows_product(const Gpu& gpu, const QuantisedParams& params, int32_t tokens) {
  bool done = false;
  with_type(params.args.w.type, [&](auto type) {
    // A warp with two tiles reads x once for both; with few tokens more warps are worth more.
    if (tokens <= 2) {
      done = launch_few_rows<type, 1, 1>(gpu, params);
    } else if (tokens <= 8) {
      done = launch_few_rows<type, 2, 1>(gpu, params) || launch_few_rows<type, 1, 1>(gpu, params);
    } else {
      done = launch_few_rows<type, 2, 2>(gpu, params);
    }
  });
  return done;
}

}  // namespace llorch::cuda
