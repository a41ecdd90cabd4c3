#include "formats/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

constexpr int kK = 256;  // values of a "K" block
constexpr float kLargestF16 = 65504;

using Values = std::span<const float>;

// Writes the f16 next to `value` and gives back what it stands for.
float put_f16(float value, uint8_t* at) {
  const uint16_t bits = f16_from_f32(std::clamp(value, -kLargestF16, kLargestF16));
  std::memcpy(at, &bits, sizeof bits);
  return f32_from_f16(bits);
}

float inverse(float x) { return x == 0 ? 0 : 1 / x; }

// To the nearest integer, ties to even, of a small number: the sum has no bits for the rest. Unlike
// the library's it is no call, so that loops are made of vectors.
float whole(float x) {
  constexpr float kBig = 0x1.8p23f;
  return (x + kBig) - kBig;
}

float nearest(float x, float least, float most) {
  return whole(std::min(std::max(x, least), most));
}

// A sum in four parts, so that it is made of vectors.
class Sum {
 public:
  void add(size_t i, float x) { parts_[i % 4] += x; }
  float total() const { return (parts_[0] + parts_[1]) + (parts_[2] + parts_[3]); }

 private:
  float parts_[4] = {};
};

float highest(Values x) {
  float top = 0;
  for (const float v : x) top = std::max(top, std::abs(v));
  return top;
}

// The value of highest magnitude, with its sign; the first on a tie.
float extreme(Values x) {
  float top = 0;
  for (const float v : x) {
    if (std::abs(v) > std::abs(top)) top = v;
  }
  return top;
}

void encode_q8_0(Values x, uint8_t* b) {
  const float d = highest(x) / 127, factor = inverse(d);
  put_f16(d, b);
  for (size_t i = 0; i < 32; ++i) {
    b[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[i] * factor)));
  }
}

void encode_q4_0(Values x, uint8_t* b) {
  const float d = extreme(x) / -8, factor = inverse(d);
  put_f16(d, b);
  const auto code = [&](float v) {
    const auto scaled = static_cast<float>(double{v} * double{factor} + 8.5);  // as the package
    return static_cast<uint8_t>(std::clamp(scaled, 0.0f, 15.0f));
  };
  for (size_t i = 0; i < 16; ++i) {
    b[2 + i] = static_cast<uint8_t>(code(x[i]) | code(x[i + 16]) << 4);
  }
}

// How much a value's error counts: more where it is large, as its products are.
template <size_t n>
std::array<float, n> weights_of(Values x, bool absolute) {
  float squares = 0;
  for (const float v : x) squares += v * v;
  const float mean = squares / static_cast<float>(n), root = std::sqrt(mean);
  std::array<float, n> weights;
  for (size_t i = 0; i < n; ++i) weights[i] = absolute ? root + std::abs(x[i]) : x[i] * x[i] + mean;
  return weights;
}

// The scale s that makes the sum of weight (x - s c)^2 least for given codes c; and by how much
// that is less than with s = 0.
struct Fit {
  float scale = 0, gain = 0;
};
template <size_t n, class Code>
Fit fit(Values x, const std::array<float, n>& weights, Code code) {
  std::array<float, n> codes;
  for (size_t i = 0; i < n; ++i) codes[i] = code(x[i]);
  Sum products, squares;
  for (size_t k = 0; k < n; k += 4) {
    for (size_t i = k; i < k + 4; ++i) {
      products.add(i, weights[i] * codes[i] * x[i]);
      squares.add(i, weights[i] * codes[i] * codes[i]);
    }
  }
  const float all = products.total(), square = squares.total();
  if (!(square > 0)) return {};
  return {all / square, all * all / square};
}

// The best scale for codes that `code` gives of x / s, among scales by which the extreme value
// becomes `top` plus some steps, up or down.
template <size_t n, class Code>
float best_scale(Values x, float top, int steps, float step, Code code) {
  const float most = extreme(x);
  if (std::abs(most) < 1e-30f) return 0;
  const auto weights = weights_of<n>(x, false);
  Fit best;
  for (int i = -steps; i <= steps; ++i) {
    const float factor = (top + step * static_cast<float>(i)) / most;
    const Fit found = fit<n>(x, weights, [&](float v) { return code(v * factor); });
    if (found.gain > best.gain) best = found;
  }
  return best.scale;
}

void encode_q6_k(Values x, uint8_t* b) {
  const auto code = [](float v) { return nearest(v, -32, 31); };
  std::array<float, 16> scales;
  for (size_t i = 0; i < 16; ++i) {
    scales[i] = best_scale<16>(x.subspan(i * 16, 16), -32, 9, 0.1f, code);
  }
  const float d = put_f16(extreme(scales) / -128, b + 208);
  std::memset(b, 0, 192);
  for (size_t i = 0; i < kK; i += 16) {
    const float scale = nearest(scales[i / 16] * inverse(d), -128, 127);
    b[192 + i / 16] = static_cast<uint8_t>(static_cast<int8_t>(scale));
    const float factor = inverse(d * scale);
    for (size_t k = i; k < i + 16; ++k) {
      const int q = static_cast<int>(code(x[k] * factor)) + 32;
      b[k / 128 * 64 + k % 64] |= static_cast<uint8_t>((q & 15) << (k % 128 / 64 * 4));
      b[128 + k / 128 * 32 + k % 32] |= static_cast<uint8_t>((q >> 4) << (k % 128 / 32 * 2));
    }
  }
}

constexpr int8_t kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// The index of the value next to each of -128 .. 127.
constexpr std::array<uint8_t, 256> kNextNonLinear = [] {
  std::array<uint8_t, 256> next{};
  uint8_t index = 0;
  for (int x = -128; x < 128; ++x) {
    while (index < 15 && 2 * x > kNonLinear[index] + kNonLinear[index + 1]) ++index;
    next[static_cast<size_t>(x + 128)] = index;
  }
  return next;
}();

uint8_t non_linear_code(float x) {
  return kNextNonLinear[static_cast<size_t>(static_cast<int>(nearest(x, -128, 127)) + 128)];
}

void encode_iq4_nl(Values x, uint8_t* b) {
  const auto value = [](float v) { return static_cast<float>(kNonLinear[non_linear_code(v)]); };
  const float scale = best_scale<32>(x, -127, 8, 1, value), factor = inverse(put_f16(scale, b));
  for (size_t i = 0; i < 16; ++i) {
    b[2 + i] = static_cast<uint8_t>(non_linear_code(x[i] * factor) |
                                    non_linear_code(x[i + 16] * factor) << 4);
  }
}

// value = scale * code - min, neither negative.
struct ScaleAndMin {
  float scale = 0, min = 0;
};

// The best for codes of 0 to `top`: for each of some steps, codes are chosen and scale and minimum
// fitted to them by least squares.
ScaleAndMin best_scale_and_min(Values x, float top) {
  const auto weights = weights_of<32>(x, true);
  float least = 0, most = 0;
  for (const float v : x) {
    least = std::min(least, v);
    most = std::max(most, v);
  }
  if (most - least < 1e-30f) return {};
  float sum_w = 0, sum_x = 0;
  for (size_t i = 0; i < 32; ++i) {
    sum_w += weights[i];
    sum_x += weights[i] * x[i];
  }
  ScaleAndMin best;
  float best_error = HUGE_VALF;
  for (int step = -1; step <= 20; ++step) {
    const float factor =
        (top + (step < 0 ? 0 : -1 + 0.1f * static_cast<float>(step))) / (most - least);
    std::array<float, 32> codes;
    for (size_t i = 0; i < 32; ++i) codes[i] = nearest((x[i] - least) * factor, 0, top);
    Sum of_c, of_cc, of_cx;
    for (size_t k = 0; k < 32; k += 4) {
      for (size_t i = k; i < k + 4; ++i) {
        const float weighted = weights[i] * codes[i];
        of_c.add(i, weighted);
        of_cc.add(i, weighted * codes[i]);
        of_cx.add(i, weighted * x[i]);
      }
    }
    const float sum_c = of_c.total(), sum_cc = of_cc.total(), sum_cx = of_cx.total();
    const float determinant = sum_w * sum_cc - sum_c * sum_c;
    if (!(determinant > 0)) continue;
    ScaleAndMin found{(sum_w * sum_cx - sum_x * sum_c) / determinant,
                      -(sum_cc * sum_x - sum_c * sum_cx) / determinant};
    if (found.min < 0) found = {sum_cx / sum_cc, 0};
    if (!(found.scale > 0)) continue;
    Sum of_squares;
    for (size_t k = 0; k < 32; k += 4) {
      for (size_t i = k; i < k + 4; ++i) {
        const float off = found.scale * codes[i] - found.min - x[i];
        of_squares.add(i, weights[i] * off * off);
      }
    }
    const float error = of_squares.total();
    if (error < best_error) {
      best_error = error;
      best = found;
    }
  }
  return best;
}

// d, dmin and the eight 6-bit scales and minima of Q4_K and Q5_K; and what they stand for.
void put_scales(const std::array<ScaleAndMin, 8>& wanted, uint8_t* b,
                std::array<ScaleAndMin, 8>* given) {
  float top_scale = 0, top_min = 0;
  for (const ScaleAndMin& s : wanted) {
    top_scale = std::max(top_scale, s.scale);
    top_min = std::max(top_min, s.min);
  }
  const float d = put_f16(top_scale / 63, b), dmin = put_f16(top_min / 63, b + 2);
  uint8_t* packed = b + 4;
  std::memset(packed, 0, 12);
  for (size_t i = 0; i < 8; ++i) {
    const int scale = static_cast<int>(nearest(wanted[i].scale * inverse(d), 0, 63));
    const int min = static_cast<int>(nearest(wanted[i].min * inverse(dmin), 0, 63));
    (*given)[i] = {d * static_cast<float>(scale), dmin * static_cast<float>(min)};
    if (i < 4) {
      packed[i] |= static_cast<uint8_t>(scale);
      packed[4 + i] |= static_cast<uint8_t>(min);
    } else {
      packed[4 + i] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
      packed[i - 4] |= static_cast<uint8_t>((scale >> 4) << 6);
      packed[i] |= static_cast<uint8_t>((min >> 4) << 6);
    }
  }
}

// The codes of a block of Q4_K or Q5_K.
std::array<int, kK> encode_k(Values x, float top, uint8_t* b) {
  std::array<ScaleAndMin, 8> wanted, given;
  for (size_t i = 0; i < 8; ++i) wanted[i] = best_scale_and_min(x.subspan(i * 32, 32), top);
  put_scales(wanted, b, &given);
  std::array<int, kK> codes;
  for (size_t i = 0; i < kK; ++i) {
    const ScaleAndMin& s = given[i / 32];
    codes[i] = static_cast<int>(nearest((x[i] + s.min) * inverse(s.scale), 0, top));
  }
  return codes;
}

void encode_q4_k(Values x, uint8_t* b) {
  const auto codes = encode_k(x, 15, b);
  std::memset(b + 16, 0, 128);
  for (size_t i = 0; i < kK; ++i) {
    b[16 + i / 64 * 32 + i % 32] |= static_cast<uint8_t>(codes[i] << (i % 64 / 32 * 4));
  }
}

void encode_q5_k(Values x, uint8_t* b) {
  const auto codes = encode_k(x, 31, b);
  std::memset(b + 16, 0, 160);
  for (size_t i = 0; i < kK; ++i) {
    b[16 + i % 32] |= static_cast<uint8_t>((codes[i] >> 4) << (i / 32));
    b[48 + i / 64 * 32 + i % 32] |= static_cast<uint8_t>((codes[i] & 15) << (i % 64 / 32 * 4));
  }
}

using Encode = void (*)(Values, uint8_t*);

Encode encoder_of(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return encode_q8_0;
    case DType::kQ4_0:
      return encode_q4_0;
    case DType::kQ4_K:
      return encode_q4_k;
    case DType::kQ5_K:
      return encode_q5_k;
    case DType::kQ6_K:
      return encode_q6_k;
    case DType::kIQ4_NL:
      return encode_iq4_nl;
    default:
      CHECK(false);
  }
}

}  // namespace

void quantize(const GgmlType& type, std::span<const float> values, std::byte* blocks) {
  const auto dtype = dtype_of(type);
  CHECK(dtype);
  const Encode encode = encoder_of(*dtype);
  const auto block_values = static_cast<size_t>(type.block_values);
  CHECK(values.size() % block_values == 0);
  auto* block = reinterpret_cast<uint8_t*>(blocks);
  for (size_t at = 0; at < values.size(); at += block_values, block += type.block_bytes) {
    encode(values.subspan(at, block_values), block);
  }
}

}  // namespace llorch
