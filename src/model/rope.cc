#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>

#include "formats/file_error.h"

namespace llorch {
namespace {

constexpr double kDefaultTheta = 10'000;
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 31;

// The scaling keys, wherever the file has them.
struct Source {
  const JsonReader& config;
  std::optional<JsonReader> scaling;  // rope_scaling or rope_parameters

  double required(const char* key, double least) const {
    const auto value = scaling->number(key, least, kMaxFactor);
    if (!value) {
      scaling->corrupt(key, "is missing, and this rope type needs it");
    }
    return *value;
  }
  double optional(const char* key, double otherwise) const {
    const auto value = scaling->number(key, 0, kMaxFactor);
    return value && *value != 0 ? *value : otherwise;
  }
  // The context that was trained on; a top-level key goes before the one beside the factor.
  double trained_context(int context) const {
    const char* key = "original_max_position_embeddings";
    const auto outer = config.integer(key, 1, kMaxContext);
    const auto inner = scaling->integer(key, 1, kMaxContext);
    return static_cast<double>(outer.value_or(inner.value_or(context)));
  }
};

// theta^(2i / dims), rounded to f32 where the reference rounds.
std::vector<float> wavelengths(double theta, int dims) {
  std::vector<float> powers(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < powers.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    powers[i] = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
  }
  return powers;
}

void scale_llama3(const Source& source, int context, std::vector<float>* inv_freq) {
  const auto factor = static_cast<float>(source.required("factor", 1e-6));
  const double low = source.required("low_freq_factor", 1e-6);
  const double high = source.required("high_freq_factor", 1e-6);
  if (high <= low) {
    source.scaling->corrupt("high_freq_factor", "must be above low_freq_factor");
  }
  const double trained = source.trained_context(context);
  for (float& freq : *inv_freq) {
    const float wavelength = 1 / freq * static_cast<float>(2 * std::numbers::pi);
    if (wavelength > static_cast<float>(trained / low)) {
      freq /= factor;
    } else if (!(wavelength < static_cast<float>(trained / high))) {
      const float smooth =
          (1 / wavelength * static_cast<float>(trained) - static_cast<float>(low)) /
          static_cast<float>(high - low);
      freq = (1 - smooth) * freq / factor + smooth * freq;
    }
  }
}

// What yarn multiplies cos and sin by.
double yarn_attention_factor(const Source& source, double factor) {
  const auto magnitude = [&](double scale) {
    return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
  };
  if (const auto given = source.scaling->number("attention_factor", 0, kMaxFactor)) {
    return *given;
  }
  const double mscale = source.optional("mscale", 0);
  const double all_dims = source.optional("mscale_all_dim", 0);
  return mscale != 0 && all_dims != 0 ? magnitude(mscale) / magnitude(all_dims) : magnitude(1);
}

Rope yarn(const Source& source, double theta, int dims, int context) {
  const double trained = source.trained_context(context);
  const double factor =
      source.scaling->number("factor", 1e-6, kMaxFactor).value_or(context / trained);
  // The dimension whose wave turns this often within the trained context.
  const auto turning = [&](double turns) {
    return dims * std::log(trained / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = turning(source.optional("beta_fast", 32));
  double high = turning(source.optional("beta_slow", 1));
  if (source.scaling->boolean("truncate").value_or(true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) {
    high += 0.001;
  }
  Rope rope{.dims = dims, .interleaved = false, .factor = 1, .inv_freq = wavelengths(theta, dims)};
  rope.factor = static_cast<float>(yarn_attention_factor(source, factor));
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    const float wave = rope.inv_freq[i];
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1 - std::clamp(ramp, 0.0f, 1.0f);  // of the unscaled frequency
    rope.inv_freq[i] = 1 / (static_cast<float>(factor) * wave) * (1 - kept) + 1 / wave * kept;
  }
  return rope;
}

}  // namespace

Rope read_rope(const JsonReader& config, int head_dim, int context) {
  auto scaling = config.object("rope_scaling");
  if (!scaling || scaling->keys().empty()) {
    scaling = config.object("rope_parameters");
  }
  const double outer_theta = config.number("rope_theta", 1, kMaxTheta).value_or(kDefaultTheta);
  const double theta =
      scaling ? scaling->number("rope_theta", 1, kMaxTheta).value_or(outer_theta) : outer_theta;
  std::string type = "default";
  if (scaling) {
    const auto old_name = scaling->string("type");
    type = scaling->string("rope_type").value_or(old_name.value_or(type));
    for (const char* nested : {"full_attention", "sliding_attention"}) {
      if (scaling->contains(nested)) {
        scaling->unsupported(nested, "rope parameters by layer type are not supported yet");
      }
    }
  }
  for (const JsonReader* reader : {&config, scaling ? &*scaling : &config}) {
    if (reader->number("partial_rotary_factor", 0, 1).value_or(1) != 1) {
      reader->unsupported("partial_rotary_factor", "is not supported yet for this architecture");
    }
  }
  const Source source{config, scaling};
  Rope rope;
  if (type == "yarn") {
    rope = yarn(source, theta, head_dim, context);
  } else if (type == "default" || type == "linear" || type == "llama3") {
    rope = {.dims = head_dim,
            .interleaved = false,
            .factor = 1,
            .inv_freq = wavelengths(theta, head_dim)};
    for (float& value : rope.inv_freq) {
      value = 1 / value;
    }
    if (type == "llama3") {
      scale_llama3(source, context, &rope.inv_freq);
    } else if (type == "linear") {
      const auto factor = static_cast<float>(source.required("factor", 1e-6));
      for (float& value : rope.inv_freq) {
        value /= factor;
      }
    }
  } else {
    scaling->unsupported("rope_type", "'" + printable(type) +
                                          "' is not supported; supported: default, linear, "
                                          "llama3, yarn");
  }
  if (!std::all_of(rope.inv_freq.begin(), rope.inv_freq.end(),
                   [](float value) { return std::isfinite(value) && value > 0; })) {
    config.corrupt("rope_theta", "gives frequencies that are not positive finite numbers");
  }
  return rope;
}

}  // namespace llorch
