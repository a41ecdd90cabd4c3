#include "ops/oracle.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/os.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

using ref::Matrix;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr int kTile = 8;  // rows of x that meet a row of weights at once
constexpr int kRun = 32;  // columns between two looks at a partial sum

// A vector of the compiler's, whatever the processor's are like.
using Lanes __attribute__((vector_size(kTile * sizeof(double)))) = double;

float* row_of(Matrix& m, int row) {
  return m.values.data() + static_cast<size_t>(row) * static_cast<size_t>(m.cols);
}
std::span<const float> row_of(const Matrix& m, int row) {
  return {m.values.data() + static_cast<size_t>(row) * static_cast<size_t>(m.cols),
          static_cast<size_t>(m.cols)};
}

double norm_of(std::span<const float> values) {
  double squares = 0;
  for (const float v : values) squares += double{v} * double{v};
  return std::sqrt(squares);
}

// Calls body(first, end) for pieces of [0, count), on threads of its own if that is worth it.
template <class Body>
void in_parallel(int32_t count, int64_t work_of_each, const Body& body) {
  constexpr int64_t kWork = 1 << 20;  // some hundred microseconds
  const auto piece = static_cast<int32_t>(std::clamp<int64_t>(kWork / work_of_each, 1, count));
  const int threads = std::min(os::usable_cpus(), (count - 1) / piece + 1);
  std::atomic<int32_t> next = 0;
  const auto work = [&] {
    for (int32_t first; (first = next.fetch_add(piece)) < count;) {
      body(first, std::min(first + piece, count));
    }
  };
  std::vector<std::future<void>> others;
  for (int i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, work));
  work();
  for (std::future<void>& other : others) other.get();
}

// As a product takes it, with what rounding makes of what it may err by: an element near the edge
// between two steps may fall on either side.
Expected rounded_input(const Expected& x, DType type) {
  if (type == DType::kF32) return x;
  const bool exact = x.allowed.rows == 0;
  if (type == DType::kQ8_0) {
    Expected out{ref::rounded_to_int8(x.values), x.allowed};
    for (size_t first = 0; !exact && first < x.values.values.size(); first += kRun) {
      float top = 0, top_error = 0;
      for (size_t i = first; i < first + kRun; ++i) {
        top = std::max(top, std::abs(x.values.values[i]));
        top_error = std::max(top_error, x.allowed.values[i]);
      }
      if (top == 0) continue;
      const float factor = 127 / top;
      for (size_t i = first; i < first + kRun; ++i) {
        const float v = x.values.values[i] * factor,
                    e = (x.allowed.values[i] + std::abs(x.values.values[i]) * top_error / top) *
                        factor;
        const float steps = std::nearbyint(v + e) - std::nearbyint(v - e);
        out.allowed.values[i] = steps / factor + std::abs(out.values.values[i]) * top_error / top;
      }
    }
    return out;
  }
  // What is beyond f16's range becomes its largest number.
  const float most = type == DType::kF16 ? 65504.0f : std::numeric_limits<float>::max();
  const auto stored = [&](float v) { return rounded(std::clamp(v, -most, most), type); };
  Expected out = x;
  for (float& v : out.values.values) v = stored(v);
  for (size_t i = 0; !exact && i < x.values.values.size(); ++i) {
    const float v = x.values.values[i], e = x.allowed.values[i];
    out.allowed.values[i] = stored(v + e) - stored(v - e);
  }
  return out;
}

// Up to kTile rows of a product's input, column by column.
struct Tile {
  std::vector<Lanes> x, error_squares;  // [cols]; the latter may be empty
  Lanes norm = {};

  Tile(const Expected& input, int first_row) : x(static_cast<size_t>(input.values.cols)) {
    const int rows = std::min(kTile, input.values.rows - first_row);
    if (input.allowed.rows > 0) error_squares.resize(x.size());
    for (int r = 0; r < rows; ++r) {
      const auto lane = static_cast<size_t>(r);
      const auto values = row_of(input.values, first_row + r);
      for (size_t c = 0; c < x.size(); ++c) x[c][lane] = double{values[c]};
      norm[lane] = norm_of(values);
      for (size_t c = 0; c < error_squares.size(); ++c) {
        const double error = double{row_of(input.allowed, first_row + r)[c]};
        error_squares[c][lane] = error * error;
      }
    }
  }
};

// sum += w * x, over `count` columns.
void add_products(const float* w, const Lanes* x, size_t count, Lanes* sum) {
  Lanes local = *sum;
  for (size_t k = 0; k < count; ++k) local += double{w[k]} * x[k];
  *sum = local;
}

// A row of weights times a tile.
struct RowSums {
  Lanes sum = {}, largest = {}, carried = {};
  double w_norm = 0;

  RowSums(std::span<const float> w, const Tile& tile) {
    double squares = 0;
    for (size_t first = 0; first < w.size(); first += kRun) {
      const size_t count = std::min<size_t>(kRun, w.size() - first);
      add_products(w.data() + first, tile.x.data() + first, count, &sum);
      for (size_t t = 0; t < kTile; ++t) largest[t] = std::max(largest[t], std::abs(sum[t]));
      for (size_t k = 0; k < count; ++k) squares += double{w[first + k]} * double{w[first + k]};
    }
    w_norm = std::sqrt(squares);
    if (tile.error_squares.empty()) return;
    std::vector<float> w_squares(w.size());
    for (size_t k = 0; k < w.size(); ++k) w_squares[k] = w[k] * w[k];
    add_products(w_squares.data(), tile.error_squares.data(), w.size(), &carried);
    for (int t = 0; t < kTile; ++t) carried[t] = std::sqrt(carried[t]);
  }
};

// Beside weights with minima those are summed apart, and both sums are larger than their
// difference.
constexpr double kRoom = 2, kRoomOfQuantised = 8;

ref::NormSpec spec_of(const Norm& n, std::span<const float> gain, std::span<const float> bias) {
  return {n.kind, n.eps, gain, bias};
}

}  // namespace

double sum_error(int n, double size) {
  return kEpsilon * (8 + 2 * std::sqrt(static_cast<double>(n))) * size;
}

Expected ExpectedProduct::whole() const {
  // Of thousands of results one has errors that mostly agree.
  constexpr float kTail = 6;
  Expected out{values, allowed};
  for (size_t i = 0; i < carried.values.size(); ++i) {
    out.allowed.values[i] = std::hypot(allowed.values[i], kTail * carried.values[i]);
  }
  return out;
}

Oracle::Oracle(const WeightSources& sources, const BackendInfo& device)
    : sources_(sources), device_(device) {}

const WeightSource& Oracle::source(const Weight& weight) const {
  const auto at = sources_.find(weight.impl.get());
  CHECK(at != sources_.end());
  return at->second;
}

std::vector<float> Oracle::vector(const Weight& weight) const {
  const WeightSource& w = source(weight);
  std::vector<float> values(static_cast<size_t>(w.shape.cols));
  w.rows.at(0).read(0, values);
  return values;
}

DType Oracle::rounds_to(DType weights) const {
  if (is_quantised(weights)) return device_.beside_quantised;
  return weights == DType::kBF16  ? device_.beside_bf16
         : weights == DType::kF16 ? device_.beside_f16
                                  : DType::kF32;
}

double Oracle::unit(DType kv_type) const {
  const auto unit_of = [](DType type) {
    switch (type) {
      case DType::kF32:
        return 0x1p-17;  // sums of a few thousand products
      case DType::kF16:
        return 0x1p-11;
      case DType::kBF16:
        return 0x1p-8;
      case DType::kQ8_0:
        return 0x1p-7;
      default:
        return 0x1p-4;
    }
  };
  double most = unit_of(kv_type);
  if (kv_type != DType::kF32) most = std::max(most, unit_of(device_.beside_bf16));
  for (const auto& [weight, source] : sources_) {
    for (const SourceRows& part : source.rows) {
      most = std::max(most, unit_of(rounds_to(part.type)));
    }
  }
  return most;
}

Expected Oracle::embed(std::span<const int32_t> tokens, const Weight& table, float scale) const {
  const WeightSource& w = source(table);
  const auto count = static_cast<int>(tokens.size());
  Expected out{Matrix(count, w.shape.cols), Matrix(count, w.shape.cols)};
  for (int r = 0; r < count; ++r) {
    int32_t row = tokens[static_cast<size_t>(r)];
    size_t part = 0;
    for (; row >= w.rows[part].count; ++part) row -= w.rows[part].count;
    const std::span values(row_of(out.values, r), static_cast<size_t>(w.shape.cols));
    w.rows[part].read(row, values);
    for (int c = 0; c < w.shape.cols; ++c) {
      out.values.at(r, c) *= scale;
      out.allowed.at(r, c) = static_cast<float>(4 * kEpsilon) * std::abs(out.values.at(r, c));
    }
  }
  return out;
}

Expected Oracle::norm(const Matrix& x, const Norm& n) const {
  const std::vector<float> gain = vector(*n.gain),
                           bias = n.bias ? vector(*n.bias) : std::vector<float>();
  Expected out{ref::norm(x, spec_of(n, gain, bias)), Matrix(x.rows, x.cols)};
  for (int r = 0; r < x.rows; ++r) {
    const auto values = row_of(x, r);
    // A mean errs like a sum with 1 / n, each difference from it by a rounding more; that reaches
    // the result times gain over the deviation, and through the deviation.
    double mean = 0, squares = 0;
    for (const float v : values) mean += double{v} / x.cols;
    for (const float v : values) squares += (double{v} - mean) * (double{v} - mean);
    const double deviation = std::sqrt(squares / x.cols + double{n.eps});
    for (int c = 0; c < x.cols; ++c) {
      const auto at = static_cast<size_t>(c);
      const double result = std::abs(double{out.values.at(r, c)}),
                   scaled = bias.empty() ? result
                                         : std::abs(double{out.values.at(r, c)} - double{bias[at]});
      double error = sum_error(x.cols, scaled) + kEpsilon * result;
      if (n.kind == NormKind::kLayer) {
        const double moved = sum_error(x.cols, norm_of(values) / std::sqrt(double(x.cols))) +
                             kEpsilon * (std::abs(double{values[at]}) + std::abs(mean));
        error += moved / deviation * (std::abs(double{gain[at]}) + scaled);
      }
      out.allowed.at(r, c) = static_cast<float>(error);
    }
  }
  return out;
}

Expected Oracle::add(const Matrix& x, const Matrix& sum) const {
  Expected out{ref::add(x, sum), Matrix(x.rows, x.cols)};
  for (size_t i = 0; i < out.values.values.size(); ++i) {
    out.allowed.values[i] = static_cast<float>(kEpsilon) * std::abs(out.values.values[i]);
  }
  return out;
}

ExpectedProduct Oracle::product(const Expected& x, const WeightSource& w,
                                std::span<const int32_t> rows) const {
  CHECK(x.values.cols == w.shape.cols);
  const auto columns = static_cast<int32_t>(rows.size());
  const int n = w.shape.cols;
  ExpectedProduct out;
  out.values = out.allowed = Matrix(x.values.rows, columns);
  if (x.allowed.rows > 0) out.carried = out.values;
  int32_t first_row = 0;
  for (const SourceRows& part : w.rows) {
    const double room = is_quantised(part.type) ? kRoomOfQuantised : kRoom;
    const Expected input = rounded_input(x, rounds_to(part.type));
    for (int first = 0; first < x.values.rows; first += kTile) {
      const Tile tile(input, first);
      const auto lanes = static_cast<size_t>(std::min(kTile, x.values.rows - first));
      in_parallel(columns, int64_t{n} * kTile, [&](int32_t begin, int32_t end) {
        std::vector<float> values(static_cast<size_t>(n));
        for (int32_t c = begin; c < end; ++c) {
          const int32_t row = rows[static_cast<size_t>(c)] - first_row;
          if (row < 0 || row >= part.count) continue;
          part.read(row, values);
          const RowSums sums(values, tile);
          const double bias =
              w.bias.empty() ? 0 : double{w.bias[static_cast<size_t>(row + first_row)]};
          for (size_t t = 0; t < lanes; ++t) {
            const int r = first + static_cast<int>(t);
            const double result = sums.sum[t] + bias;
            const double size = sums.w_norm * tile.norm[t] / std::sqrt(double(n)) + sums.largest[t];
            out.values.at(r, c) = static_cast<float>(result);
            out.allowed.at(r, c) = static_cast<float>(
                room * sum_error(n, size) + kEpsilon * (std::abs(result) + std::abs(bias)));
            if (out.carried.rows > 0) out.carried.at(r, c) = static_cast<float>(sums.carried[t]);
          }
        }
      });
    }
    first_row += part.count;
  }
  return out;
}

ExpectedProduct Oracle::linear(const Expected& x, const Weight& w) const {
  std::vector<int32_t> rows(static_cast<size_t>(w.shape.rows));
  std::iota(rows.begin(), rows.end(), 0);
  return product(x, source(w), rows);
}

Expected Oracle::activate(const Expected& up, Act act, bool gated) const {
  const int cols = gated ? up.values.cols / 2 : up.values.cols;
  Expected out{Matrix(up.values.rows, cols), Matrix(up.values.rows, cols)};
  for (int r = 0; r < up.values.rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      const double gate = double{up.values.at(r, c)}, gate_error = double{up.allowed.at(r, c)};
      const double other = gated ? double{up.values.at(r, c + cols)} : 1;
      const double other_error = gated ? double{up.allowed.at(r, c + cols)} : 0;
      const double active = ref::activate(gate, act);
      // An activation's slope is at most 1.13; what multiplies its argument errs like numbers
      // near 1.
      constexpr double kSlope = 1.2;
      out.values.at(r, c) = static_cast<float>(active * other);
      out.allowed.at(r, c) = static_cast<float>(gate_error * std::abs(other) * kSlope +
                                                other_error * (std::abs(active) + gate_error) +
                                                8 * kEpsilon * std::abs(gate * other));
    }
  }
  return out;
}

Expected Oracle::logits(const Matrix& x, const Weight& head, std::span<const int32_t> tokens,
                        float softcap) const {
  ExpectedProduct product = this->product({x, {}}, source(head), tokens);
  if (softcap > 0) {
    // The cap's slope is at most 1; it adds a few roundings of numbers up to its size.
    for (float& v : product.values.values) v = softcap * std::tanh(v / softcap);
    for (float& v : product.allowed.values) v += static_cast<float>(8 * kEpsilon) * softcap;
  }
  return product;
}

}  // namespace llorch
