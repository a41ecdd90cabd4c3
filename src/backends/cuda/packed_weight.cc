#include "backends/cuda/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "backends/cuda/quantised_layout.h"
#include "base/error.h"
#include "base/os.h"
#include "ops/dtype.h"

namespace llorch::cuda {
namespace {

constexpr int kMostThreads = 8;  // as many fill pinned memory faster than a bus empties it

DType kept_as(const RawTensor& part, DType type) {
  return is_quantised(part.type) ? part.type : type;
}

// The rows of several tensors as if they were one's.
class StackedRows {
 public:
  explicit StackedRows(std::span<const RawTensor> parts) : parts_(parts) {}

  int32_t count() const {
    int32_t rows = 0;
    for (const RawTensor& part : parts_) rows += part.shape.rows;
    return rows;
  }
  const RawTensor& part_of(int64_t* row) const {
    for (const RawTensor& part : parts_) {
      if (*row < part.shape.rows) return part;
      *row -= part.shape.rows;
    }
    CHECK(false);
    return parts_[0];
  }
  std::span<const std::byte> bytes(int64_t row) const {
    const RawTensor& part = part_of(&row);
    const uint64_t size = row_bytes(part.type, part.shape.cols);
    return part.bytes.subspan(static_cast<uint64_t>(row) * size, size);
  }
  DType type(int64_t row) const { return part_of(&row).type; }

 private:
  std::span<const RawTensor> parts_;
};

void store(std::span<const float> values, DType type, std::byte* to) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == DType::kF32) {
      std::memcpy(to + i * 4, &values[i], 4);
    } else {
      const uint16_t bits =
          type == DType::kF16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
      std::memcpy(to + i * 2, &bits, 2);
    }
  }
}

// One row of `cols` as `type`, zeros behind it.
void pack_row(std::span<const std::byte> from, DType given, int32_t cols, DType type,
              std::byte* to) {
  const size_t size = size_bytes(type), used = static_cast<size_t>(cols) * size;
  if (given == type) {
    std::memcpy(to, from.data(), used);
  } else {
    store(to_f32(from, given, static_cast<size_t>(cols)), type, to);
  }
  std::memset(to + used, 0, static_cast<size_t>(padded_columns(cols)) * size - used);
}

PackedRows pack_plain(const Gpu& gpu, Uploader& uploader, std::span<const RawTensor> parts,
                      DType type) {
  const StackedRows stacked(parts);
  PackedRows packed;
  packed.view = {.rows = stacked.count(), .cols = parts[0].shape.cols, .type = type};
  const uint64_t bytes = static_cast<uint64_t>(padded_columns(packed.view.cols)) * size_bytes(type);
  packed.values = DeviceMemory(gpu, bytes * static_cast<uint64_t>(packed.view.rows), "weights");
  uploader.upload(packed.values.data(), packed.view.rows, bytes,
                  [&](int64_t first, int64_t end, std::byte* to) {
                    for (int64_t row = first; row < end; ++row, to += bytes) {
                      pack_row(stacked.bytes(row), stacked.type(row), packed.view.cols, type, to);
                    }
                  });
  packed.view.values = packed.values.data();
  return packed;
}

using PackPanel = void (*)(DType, std::span<const std::byte* const>, int32_t, std::byte*);

// One of the two planes of a quantised weight, panel after panel.
DeviceMemory pack_plane(const Gpu& gpu, Uploader& uploader, const StackedRows& stacked,
                        const WeightRows& view, int64_t panel_bytes, PackPanel pack) {
  const int32_t panels = panels_of(view.rows);
  const auto bytes = static_cast<uint64_t>(panel_bytes);
  DeviceMemory plane(gpu, bytes * static_cast<uint64_t>(panels), "weights");
  uploader.upload(plane.data(), panels, bytes, [&](int64_t first, int64_t end, std::byte* to) {
    for (int64_t panel = first; panel < end; ++panel, to += bytes) {
      const std::byte* rows[kPanelRows];
      const int64_t row = panel * kPanelRows;
      const auto count = static_cast<size_t>(std::min<int64_t>(kPanelRows, view.rows - row));
      for (size_t i = 0; i < count; ++i) {
        rows[i] = stacked.bytes(row + static_cast<int64_t>(i)).data();
      }
      pack(view.type, std::span(rows, count), view.cols, to);
    }
  });
  return plane;
}

PackedRows pack_quantised(const Gpu& gpu, Uploader& uploader, std::span<const RawTensor> parts) {
  const StackedRows stacked(parts);
  const int32_t cols = parts[0].shape.cols;
  const DType type = parts[0].type;
  PackedRows packed;
  packed.view = {.rows = stacked.count(), .cols = cols, .type = type};
  packed.values = pack_plane(gpu, uploader, stacked, packed.view, panel_code_bytes(type, cols),
                             &pack_panel_codes);
  packed.scales = pack_plane(gpu, uploader, stacked, packed.view, panel_scale_bytes(type, cols),
                             &pack_panel_scales);
  packed.view.values = packed.values.data();
  packed.view.scales = packed.scales.data();
  return packed;
}

DeviceMemory pack_vector(const Gpu& gpu, Uploader& uploader, const std::vector<float>& values) {
  const auto padded = static_cast<uint64_t>(padded_columns(static_cast<int32_t>(values.size())));
  DeviceMemory memory(gpu, padded * sizeof(float), "weights");
  uploader.upload(memory.data(), 1, padded * sizeof(float), [&](int64_t, int64_t, std::byte* to) {
    std::memset(to, 0, padded * sizeof(float));
    std::memcpy(to, values.data(), values.size() * sizeof(float));
  });
  return memory;
}

// Rounded as the rows are: a checkpoint of one type has one for both.
std::vector<float> bias_values(std::span<const RawTensor> parts, std::span<const RawTensor> bias,
                               DType type) {
  std::vector<float> values;
  for (size_t i = 0; i < bias.size(); ++i) {
    const DType as = is_quantised(parts[i].type) ? DType::kF32 : type;
    for (const float x :
         to_f32(bias[i].bytes, bias[i].type, static_cast<size_t>(bias[i].shape.cols))) {
      values.push_back(rounded(x, as));
    }
  }
  return values;
}

}  // namespace

uint64_t PackedWeight::bytes() const {
  uint64_t total = bias.bytes();
  for (const PackedRows& part : rows) total += part.values.bytes() + part.scales.bytes();
  return total;
}

Uploader::Uploader(const Gpu& gpu) : gpu_(gpu) {
  for (Piece& piece : pieces_) piece.sent = std::make_unique<Event>(gpu);
}

std::byte* Uploader::next_piece() {
  current_ = 1 - current_;
  Piece& piece = pieces_[current_];
  if (piece.memory.bytes() == 0) piece.memory = PinnedMemory(gpu_, kPieceBytes);
  piece.sent->wait();
  return piece.memory.data();
}

void Uploader::send(std::byte* device, uint64_t bytes) {
  gpu_.upload(device, pieces_[current_].memory.data(), bytes);
  pieces_[current_].sent->record(gpu_);
}

void Uploader::release() {
  gpu_.synchronize();
  for (Piece& piece : pieces_) piece.memory = {};
}

void Uploader::parallel(int64_t count, uint64_t bytes,
                        const std::function<void(int64_t, int64_t)>& body) {
  constexpr uint64_t kWorthAThread = uint64_t{1} << 20;
  const int64_t threads = std::min({count, int64_t{std::min(kMostThreads, os::usable_cpus())},
                                    static_cast<int64_t>(bytes / kWorthAThread + 1)});
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back(
        [&body, i, count, threads] { body(count * i / threads, count * (i + 1) / threads); });
  }
  body(0, count / threads);
  for (std::thread& other : others) other.join();
}

PackedWeight pack_weight(const Gpu& gpu, Uploader& uploader, std::span<const RawTensor> parts,
                         std::span<const RawTensor> bias, Shape shape, DType type) {
  PackedWeight weight;
  if (shape.rows == 1) {
    const auto values = to_f32(parts[0].bytes, parts[0].type, static_cast<size_t>(shape.cols));
    PackedRows& row = weight.rows.emplace_back();
    row.values = pack_vector(gpu, uploader, values);
    row.view = {.values = row.values.data(), .rows = 1, .cols = shape.cols, .type = DType::kF32};
    return weight;
  }
  int32_t row = 0;
  for (size_t first = 0, end = 0; first < parts.size(); first = end) {
    const DType kept = kept_as(parts[first], type);
    while (end < parts.size() && kept_as(parts[end], type) == kept) ++end;
    const auto same = parts.subspan(first, end - first);
    weight.rows.push_back(is_quantised(kept) ? pack_quantised(gpu, uploader, same)
                                             : pack_plain(gpu, uploader, same, kept));
    weight.rows.back().first_row = row;
    row += weight.rows.back().view.rows;
  }
  if (bias.empty()) return weight;
  weight.bias = pack_vector(gpu, uploader, bias_values(parts, bias, type));
  for (PackedRows& part : weight.rows) part.view.bias = weight.bias.as<float>() + part.first_row;
  return weight;
}

}  // namespace llorch::cuda
