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

constexpr size_t kK = 256;  // values of a "K" block
constexpr float kLargestF16 = 65504;

using Values = std::span<const float>;

// Four numbers side by side, in a vector that every compiler has on every machine. A search tries
// four scales at a time, so that the same instructions do for all four and no sum crosses lanes.
using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));

F4 all(float x) { return F4{x, x, x, x}; }
F4 at_least(F4 x, F4 least) { return x > least ? x : least; }
F4 at_most(F4 x, F4 most) { return x < most ? x : most; }
float largest(F4 x) { return std::max(std::max(x[0], x[1]), std::max(x[2], x[3])); }

F4 load(const float* from) {
  F4 x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
void store(F4 x, float* to) { std::memcpy(to, &x, sizeof x); }

// The integers from `least` to `most` that are next to small numbers, ties to even: the sum has no
// bits for the rest. A NaN becomes `least`.
F4 nearest(F4 x, float least, float most) {
  const F4 big = all(0x1.8p23f);
  return (at_most(at_least(x, all(least)), all(most)) + big) - big;
}
float nearest(float x, float least, float most) { return nearest(all(x), least, most)[0]; }

// 0 for what has none that is finite.
float inverse(float x) {
  const float y = 1 / x;
  return std::isfinite(y) ? y : 0;
}

// Writes the f16 next to `value` and gives back what it stands for.
float put_f16(float value, uint8_t* at) {
  const uint16_t bits = f16_from_f32(std::clamp(value, -kLargestF16, kLargestF16));
  std::memcpy(at, &bits, sizeof bits);
  return f32_from_f16(bits);
}

// Writes the f16 that `top` is about `codes` times of. Small ones are far between: where the next
// would leave `top` out of the codes' reach, the one above it.
float put_unit(float top, float codes, uint8_t* at) {
  const float unit = put_f16(top / codes, at);
  if (top <= unit * (codes + 0.5f) || unit == kLargestF16) return unit;
  return put_f16(std::max(unit * (1 + 0x1p-10f), unit + 0x1p-24f), at);
}

// The value of highest magnitude, with its sign; the first on a tie.
float extreme(Values x) {
  F4 magnitude{};
  for (size_t i = 0; i < x.size(); i += 4) {
    const F4 v = load(&x[i]);
    magnitude = at_least(at_least(v, -v), magnitude);
  }
  const float highest = largest(magnitude);
  for (const float v : x) {
    if (std::abs(v) == highest) return v;
  }
  return 0;
}

// Two codes of four bits in a byte: the low halves are those of the first values.
void put_halves(const uint8_t* codes, size_t count, uint8_t* to) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = static_cast<uint8_t>(codes[i] | codes[count + i] << 4);
  }
}

void encode_q8_0(Values x, uint8_t* b) {
  const float d = std::abs(extreme(x)) / 127, factor = inverse(d);
  put_f16(d, b);
  for (size_t i = 0; i < 32; ++i) {
    const float v = x[i] * factor;  // to the nearest, ties away from zero
    b[2 + i] = static_cast<uint8_t>(static_cast<int>(v + std::copysign(0x1.fffffep-2f, v)));
  }
}

// Codes are those next to the values in steps of the scale as it is kept.
void encode_f8_e4m3(Values x, uint8_t* b) {
  const float factor = inverse(put_f16(std::abs(extreme(x)) / 448, b));
  for (size_t i = 0; i < 32; ++i) b[2 + i] = e4m3_from_f32(x[i] * factor);
}

void encode_q4_0(Values x, uint8_t* b) {
  const float d = extreme(x) / -8, factor = inverse(d);
  put_f16(d, b);
  uint8_t codes[32];
  for (size_t i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>(std::min(static_cast<int>(x[i] * factor + 8.5f), 15));
  }
  put_halves(codes, 16, b + 2);
}

// The scale s that makes the sum of (x - s c)^2 least, where c = code(x / s): tries some by which
// the extreme value becomes about `top`, and fits each to its codes by least squares.
template <class Code>
float best_scale(Values x, float top, const Code& code) {
  const float most = extreme(x);
  if (std::abs(most) < 1e-30f) return 0;
  float best = 0, best_gain = 0;  // how much less the sum is than with s = 0
  for (float part = 0.82f; part < 1.1f; part += 0.1f) {
    const F4 factors = (part + F4{0, 0.025f, 0.05f, 0.075f}) * (top / most);
    F4 squares{}, products{};
    for (const float v : x) {
      const F4 c = code(v * factors);
      squares += c * c;
      products += c * v;
    }
    const F4 scales = products / squares, gains = scales * products;
    for (int i = 0; i < 4; ++i) {
      if (gains[i] > best_gain) {
        best_gain = gains[i];
        best = scales[i];
      }
    }
  }
  return best;
}

// Of four ways to write a group of values, the first that has the least error.
int least_of(F4 errors) {
  int best = 0;
  for (int i = 1; i < 4; ++i) {
    if (errors[i] < errors[best]) best = i;
  }
  return best;
}

void encode_q6_k(Values x, uint8_t* b) {
  constexpr size_t kGroup = 16;
  const auto code = [](auto v) { return nearest(v, -32, 31); };
  std::array<float, kK / kGroup> wanted;
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i] = best_scale(x.subspan(i * kGroup, kGroup), -32, code);
  }
  const float d = put_unit(std::abs(extreme(wanted)), 127, b + 208);
  std::array<uint8_t, kK> codes;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Values group = x.subspan(i * kGroup, kGroup);
    const F4 near = nearest(wanted[i] * inverse(d) + F4{0, -1, 1, 2}, -127, 127);
    const F4 scales = d * near, factors = 1 / scales;
    F4 errors{};
    for (const float v : group) {
      const F4 error = scales * code(v * factors) - v;
      errors += error * error;
    }
    const int chosen = least_of(errors);
    b[192 + i] = static_cast<uint8_t>(static_cast<int>(near[chosen]));
    const float factor = inverse(scales[chosen]);
    for (size_t k = 0; k < kGroup; ++k) {
      codes[i * kGroup + k] = static_cast<uint8_t>(static_cast<int>(code(group[k] * factor)) + 32);
    }
  }
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* c = &codes[half * 128];
    uint8_t* low = b + half * 64;
    uint8_t* high = b + 128 + half * 32;
    for (size_t i = 0; i < 64; ++i) {
      low[i] = static_cast<uint8_t>((c[i] & 15) | c[64 + i] << 4);
    }
    for (size_t i = 0; i < 32; ++i) {
      high[i] = static_cast<uint8_t>(c[i] >> 4 | c[32 + i] >> 4 << 2 | c[64 + i] >> 4 << 4 |
                                     c[96 + i] >> 4 << 6);
    }
  }
}

// The table's values, and which of them is next to each number from -128 on, half by half: no two
// numbers between two halves are next to different ones.
struct NonLinear {
  static constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
  std::array<uint8_t, 512> codes{};
  std::array<float, 512> values{};
};
constexpr NonLinear kNonLinear = [] {
  NonLinear next;
  int code = 0;
  for (int half = -256; half < 256; ++half) {
    while (code < 15 && half >= NonLinear::kValues[code] + NonLinear::kValues[code + 1]) ++code;
    next.codes[static_cast<size_t>(half + 256)] = static_cast<uint8_t>(code);
    next.values[static_cast<size_t>(half + 256)] = NonLinear::kValues[code];
  }
  return next;
}();

// Where kNonLinear has what is next to x.
I4 place(F4 x) {
  return __builtin_convertvector(at_most(at_least(x * 2.0f + 256.0f, all(0)), all(511)), I4);
}

void encode_iq4_nl(Values x, uint8_t* b) {
  const auto value = [](F4 v) {
    const I4 at = place(v);
    const auto of = [&](int i) { return kNonLinear.values[static_cast<size_t>(at[i])]; };
    return F4{of(0), of(1), of(2), of(3)};
  };
  const float factor = inverse(put_f16(best_scale(x, -127, value), b));
  uint8_t codes[32];
  for (size_t i = 0; i < 32; i += 4) {
    const I4 at = place(load(&x[i]) * factor);
    for (size_t k = 0; k < 4; ++k) codes[i + k] = kNonLinear.codes[static_cast<size_t>(at[k])];
  }
  put_halves(codes, 16, b + 2);
}

// 32 values as scale * code - min, neither negative; and sums of values and codes.
struct ScaleAndMin {
  float scale = 0, min = 0;
  float values = 0, codes = 0;
  // The best minimum for the same codes and another scale.
  F4 min_with(F4 other_scale) const { return (other_scale * codes - values) * (1 / 32.0f); }
};

// Those that make the sum of squared errors least, for codes of 0 to `top`: tries some scales by
// which the highest value becomes about `top`, and fits scale and minimum to the codes.
ScaleAndMin best_scale_and_min(Values x, float top) {
  constexpr float kCount = 32;
  F4 low{}, high = load(x.data());
  for (size_t i = 0; i < 32; i += 4) {
    const F4 v = load(&x[i]);
    low = at_most(v, low);
    high = at_least(v, high);
  }
  const float least = -largest(-low), range = largest(high) - least;
  // Sums are of what is above the least, where the minimum cancels least.
  std::array<float, 32> above;
  F4 sums{};
  for (size_t i = 0; i < 32; i += 4) {
    const F4 v = load(&x[i]) - least;
    store(v, &above[i]);
    sums += v;
  }
  const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  ScaleAndMin best{.min = -least, .values = sum + kCount * least};
  if (range < 1e-30f) return best;
  float best_gain = 0;  // how much less the sum of squares is than without scale and offset
  for (float more = -2; more < 1; more += 1) {
    const F4 factors = (top + more + F4{0, 0.25f, 0.5f, 0.75f}) / range;
    F4 codes{}, squares{}, products{};
    for (const float v : above) {
      const F4 c = nearest(v * factors, 0, top);
      codes += c;
      squares += c * c;
      products += c * v;
    }
    const F4 determinant = kCount * squares - codes * codes;
    const F4 fitted = (kCount * products - codes * sum) / determinant;
    const F4 fitted_offset = (sum - fitted * codes) * (1 / kCount);
    // No minimum is below zero; and where all codes are the same, none is needed.
    const I4 fits = (determinant > 0.0f) & (fitted_offset <= -least);
    const F4 offsets = fits ? fitted_offset : all(-least);
    const F4 scales = fits ? fitted : (products - offsets * codes) / squares;
    const F4 gains = 2.0f * (scales * products + offsets * sum) -
                     scales * (scales * squares + 2.0f * offsets * codes) -
                     kCount * offsets * offsets;
    for (int i = 0; i < 4; ++i) {
      if (gains[i] > best_gain) {
        best_gain = gains[i];
        best.scale = scales[i];
        best.min = -(offsets[i] + least);
        best.codes = codes[i];
      }
    }
  }
  return best;
}

// Eight scales and minima of 6 bits each, in 12 bytes.
void put_scales(const std::array<uint8_t, 8>& scales, const std::array<uint8_t, 8>& mins,
                uint8_t* to) {
  for (size_t i = 0; i < 4; ++i) {
    to[i] = static_cast<uint8_t>(scales[i] | scales[4 + i] >> 4 << 6);
    to[4 + i] = static_cast<uint8_t>(mins[i] | mins[4 + i] >> 4 << 6);
    to[8 + i] = static_cast<uint8_t>((scales[4 + i] & 15) | (mins[4 + i] & 15) << 4);
  }
}

// What Q4_K and Q5_K have in common: writes the scales, gives back the codes.
std::array<uint8_t, kK> encode_k(Values x, float top, uint8_t* b) {
  constexpr size_t kGroup = 32;
  std::array<ScaleAndMin, 8> wanted;
  float top_scale = 0, top_min = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i] = best_scale_and_min(x.subspan(i * kGroup, kGroup), top);
    top_scale = std::max(top_scale, wanted[i].scale);
    top_min = std::max(top_min, wanted[i].min);
  }
  const float d = put_unit(top_scale, 63, b), dmin = put_unit(top_min, 63, b + 2);
  std::array<uint8_t, 8> scale_codes, min_codes;
  std::array<uint8_t, kK> codes;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Values group = x.subspan(i * kGroup, kGroup);
    const F4 near_scale = nearest(wanted[i].scale * inverse(d) + F4{0, -1, 1, 2}, 0, 63);
    const F4 scales = d * near_scale, factors = 1 / scales;
    const F4 near_min = nearest(wanted[i].min_with(scales) * inverse(dmin), 0, 63);
    const F4 mins = dmin * near_min;
    F4 errors{};
    for (const float v : group) {
      const F4 error = scales * nearest((v + mins) * factors, 0, top) - mins - v;
      errors += error * error;
    }
    const int chosen = least_of(errors);
    scale_codes[i] = static_cast<uint8_t>(near_scale[chosen]);
    min_codes[i] = static_cast<uint8_t>(near_min[chosen]);
    const float min = mins[chosen], factor = inverse(scales[chosen]);
    for (size_t k = 0; k < kGroup; ++k) {
      codes[i * kGroup + k] = static_cast<uint8_t>(nearest((group[k] + min) * factor, 0, top));
    }
  }
  put_scales(scale_codes, min_codes, b + 4);
  return codes;
}

void encode_q4_k(Values x, uint8_t* b) {
  const auto codes = encode_k(x, 15, b);
  for (size_t i = 0; i < 4; ++i) put_halves(&codes[i * 64], 32, b + 16 + i * 32);
}

void encode_q5_k(Values x, uint8_t* b) {
  auto codes = encode_k(x, 31, b);
  uint8_t* fifths = b + 16;
  std::memset(fifths, 0, 32);
  for (size_t i = 0; i < 8; ++i) {
    for (size_t k = 0; k < 32; ++k) {
      uint8_t& code = codes[i * 32 + k];
      fifths[k] = static_cast<uint8_t>(fifths[k] | code >> 4 << i);
      code &= 15;
    }
  }
  for (size_t i = 0; i < 4; ++i) put_halves(&codes[i * 64], 32, b + 48 + i * 32);
}

struct Encoder {
  void (*encode)(Values, uint8_t*);
  float most_scales;  // the highest value that blocks have room for, as multiple of an f16
};

Encoder encoder_of(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {encode_q8_0, 127};
    case DType::kQ4_0:
      return {encode_q4_0, 8};
    case DType::kQ4_K:
      return {encode_q4_k, 63};  // a minimum has no codes
    case DType::kQ5_K:
      return {encode_q5_k, 63};
    case DType::kQ6_K:
      return {encode_q6_k, 127 * 31};
    case DType::kIQ4_NL:
      return {encode_iq4_nl, 113};
    case DType::kF8E4M3:
      return {encode_f8_e4m3, 448};
    default:
      CHECK(false);
  }
}

}  // namespace

void quantize(const GgmlType& type, std::span<const float> values, std::byte* blocks) {
  const auto dtype = dtype_of(type);
  CHECK(dtype);
  const Encoder encoder = encoder_of(*dtype);
  const F4 most = all(encoder.most_scales * kLargestF16);
  const auto block_values = static_cast<size_t>(type.block_values);
  CHECK(values.size() % block_values == 0);
  auto* block = reinterpret_cast<uint8_t*>(blocks);
  std::array<float, kK> within;
  for (size_t at = 0; at < values.size(); at += block_values, block += type.block_bytes) {
    for (size_t i = 0; i < block_values; i += 4) {
      store(at_most(at_least(load(&values[at + i]), -most), most), &within[i]);
    }
    encoder.encode(Values(within).first(block_values), block);
  }
}

}  // namespace llorch
