#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>

#include "formats/file_error.h"

namespace llorch {
namespace {

constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 31;
constexpr int kMaxExtended = 1 << 28;
constexpr int kPhi3Trained = 4096;  // where config.json does not say

// One rope's keys, wherever the file has them.
struct Source {
  const JsonReader& config;
  std::optional<JsonReader> scaling;  // rope_scaling, rope_parameters, or one of the latter's
  std::string type;
  double theta;

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

// theta^(2i / dims) of each pair, rounded to f32 where the reference rounds.
std::vector<float> wavelengths(double theta, int dims) {
  std::vector<float> powers(static_cast<size_t>((dims + 1) / 2));
  for (size_t i = 0; i < powers.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    powers[i] = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
  }
  return powers;
}

Rope plain(double theta, int dims) {
  Rope rope;
  rope.inv_freq = wavelengths(theta, dims);
  rope.dims = static_cast<int>(rope.inv_freq.size()) * 2;
  for (float& value : rope.inv_freq) {
    value = 1 / value;
  }
  return rope;
}

// How far a scaled rope reaches; never less than config.json says.
int extended(double trained, double factor, int context) {
  return static_cast<int>(std::clamp(trained * factor, static_cast<double>(context),
                                     static_cast<double>(kMaxExtended)));
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

Rope yarn(const Source& source, int dims, const RopeOptions& options, int* context) {
  const double theta = source.theta, trained = source.trained_context(options.context);
  const double factor =
      source.scaling->number("factor", 1e-6, kMaxFactor).value_or(options.context / trained);
  *context = extended(trained, factor, *context);
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
  Rope rope;
  rope.dims = dims;
  rope.inv_freq = wavelengths(theta, dims);
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

// The factors of the wavelengths of each pair of dimensions.
std::vector<double> pair_factors(const JsonReader& scaling, const char* key, int dims) {
  auto factors = scaling.numbers(key, 1e-6, kMaxFactor);
  if (!factors) {
    scaling.corrupt(key, "is missing, and this rope type needs it");
  }
  if (factors->size() != static_cast<size_t>(dims / 2)) {
    scaling.corrupt(key, "has " + std::to_string(factors->size()) + " factors for " +
                             std::to_string(dims / 2) + " pairs of dimensions");
  }
  return *factors;
}

std::vector<float> stretched(const Source& source, const char* key, int dims) {
  const std::vector<float> waves = wavelengths(source.theta, dims);
  const std::vector<double> factors = pair_factors(*source.scaling, key, dims);
  std::vector<float> inv_freq;
  for (size_t i = 0; i < factors.size(); ++i) {
    inv_freq.push_back(1 / (static_cast<float>(factors[i]) * waves[i]));
  }
  return inv_freq;
}

Rope longrope(const Source& source, int dims, const RopeOptions& options) {
  const auto trained = source.config.integer("original_max_position_embeddings", 1, kMaxContext);
  Rope rope = plain(source.theta, dims);
  rope.trained = static_cast<int>(std::min<int64_t>(trained.value_or(kPhi3Trained), INT32_MAX));
  rope.inv_freq = stretched(source, "short_factor", dims);
  rope.long_inv_freq = stretched(source, "long_factor", dims);
  const double length = rope.trained;
  const double factor =
      source.scaling->number("factor", 1e-6, kMaxFactor).value_or(options.context / length);
  const double computed =
      factor <= 1 || length <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(length));
  rope.factor = static_cast<float>(
      source.scaling->number("attention_factor", 0, kMaxFactor).value_or(computed));
  return rope;
}

Rope dynamic(const Source& source, int dims, const RopeOptions& options, int* context) {
  if (dims < 4) {
    source.scaling->corrupt(
        "rope_type", "dynamic scaling needs 4 dimensions or more; got " + std::to_string(dims));
  }
  Rope rope = plain(source.theta, dims);
  rope.trained = options.context;
  rope.theta = source.theta;
  rope.ntk_factor = source.required("factor", 1);
  *context = extended(options.context, rope.ntk_factor, *context);
  return rope;
}

Rope linear(const Source& source, int dims, const RopeOptions& options, int* context) {
  Rope rope = plain(source.theta, dims);
  const double factor = source.required("factor", 1e-6);
  for (float& value : rope.inv_freq) {
    value /= static_cast<float>(factor);
  }
  *context = extended(options.context, factor, *context);
  return rope;
}

// How many of a head's dimensions turn.
int rotated_dims(const Source& source, const RopeOptions& options) {
  const char* key = "partial_rotary_factor";
  const auto outer = source.config.number(key, 0, 1);
  const auto inner = source.scaling ? source.scaling->number(key, 0, 1) : std::nullopt;
  const JsonReader& said_by = inner ? *source.scaling : source.config;
  const double part = inner.value_or(outer.value_or(options.part));
  if (!options.may_be_partial && part != 1) {
    said_by.unsupported(key, "is not supported for this architecture");
  }
  const int dims = static_cast<int>(options.head_dim * part);
  const bool rounds_up = options.longrope && source.type == "default";
  if (dims < 2 || (dims % 2 != 0 && !rounds_up)) {
    said_by.unsupported(key, "must leave an even number of rotated dimensions, 2 or more; got " +
                                 std::to_string(dims));
  }
  return dims;
}

Rope make_rope(const Source& source, const RopeOptions& options, int* context) {
  const int dims = rotated_dims(source, options);
  Rope rope;
  if (source.type == "default") {
    rope = plain(source.theta, dims);
  } else if (options.longrope) {
    // Phi-3's files called it "su", and for a while "yarn".
    if (source.type != "longrope" && source.type != "su" && source.type != "yarn") {
      source.scaling->unsupported("rope_type", "'" + printable(source.type) +
                                                   "' is not supported for this architecture; "
                                                   "supported: default, longrope");
    }
    rope = longrope(source, dims, options);
  } else if (source.type == "linear") {
    rope = linear(source, dims, options, context);
  } else if (source.type == "dynamic") {
    rope = dynamic(source, dims, options, context);
  } else if (source.type == "llama3") {
    rope = plain(source.theta, dims);
    scale_llama3(source, options.context, &rope.inv_freq);
  } else if (source.type == "yarn") {
    rope = yarn(source, dims, options, context);
  } else if (source.type == "factors") {
    // No name of transformers': a GGUF file has these in place of llama3's parameters.
    rope.dims = dims;
    rope.inv_freq = stretched(source, "factors", dims);
  } else {
    source.scaling->unsupported("rope_type", "'" + printable(source.type) +
                                                 "' is not supported for this architecture; "
                                                 "supported: default, linear, dynamic, llama3, "
                                                 "yarn");
  }
  for (const auto* list : {&rope.inv_freq, &rope.long_inv_freq}) {
    if (!std::all_of(list->begin(), list->end(),
                     [](float value) { return std::isfinite(value) && value > 0; })) {
      source.config.corrupt("rope_theta", "gives frequencies that are not positive finite numbers");
    }
  }
  return rope;
}

std::string type_of(const std::optional<JsonReader>& scaling) {
  if (!scaling) {
    return "default";
  }
  const auto old_name = scaling->string("type");
  return scaling->string("rope_type").value_or(old_name.value_or("default"));
}

double theta_of(const JsonReader& reader, const char* key, double otherwise) {
  return reader.number(key, 1, kMaxTheta).value_or(otherwise);
}

// An empty object says as much as none.
std::optional<JsonReader> filled_object(const JsonReader& config, const char* key) {
  auto object = config.object(key);
  return object && object->keys().empty() ? std::nullopt : object;
}

}  // namespace

Rope read_rope(const JsonReader& config, const RopeOptions& options, int* context) {
  auto scaling = filled_object(config, "rope_scaling");
  if (!scaling) {
    scaling = filled_object(config, "rope_parameters");
  }
  const double outer_theta = theta_of(config, "rope_theta", options.theta);
  const double theta = scaling ? theta_of(*scaling, "rope_theta", outer_theta) : outer_theta;
  for (const char* nested : {"full_attention", "sliding_attention"}) {
    if (scaling && scaling->contains(nested)) {
      scaling->unsupported(nested,
                           "rope parameters by layer type are not supported for this architecture");
    }
  }
  return make_rope({config, scaling, type_of(scaling), theta}, options, context);
}

LayerRopes read_layer_ropes(const JsonReader& config, const RopeOptions& options) {
  constexpr double kSlidingTheta = 10'000;
  const auto parameters = filled_object(config, "rope_parameters");
  if (parameters && (parameters->contains("rope_type") || parameters->contains("rope_theta"))) {
    parameters->unsupported("rope_theta",
                            "this architecture has rope parameters by layer type only");
  }
  const auto nested = [&](const char* key) {
    return parameters ? filled_object(*parameters, key) : std::nullopt;
  };
  auto full = nested("full_attention");
  const auto sliding = nested("sliding_attention");
  double full_theta = theta_of(config, "rope_theta", options.theta);
  double sliding_theta = theta_of(config, "rope_local_base_freq", kSlidingTheta);
  full_theta = full ? theta_of(*full, "rope_theta", full_theta) : full_theta;
  sliding_theta = sliding ? theta_of(*sliding, "rope_theta", sliding_theta) : sliding_theta;
  if (const auto scaling = filled_object(config, "rope_scaling")) {
    full = scaling;
    full_theta = theta_of(*full, "rope_theta", full_theta);
  }
  int context = options.context;  // these models' files say what they can see after the scaling
  return {make_rope({config, full, type_of(full), full_theta}, options, &context),
          make_rope({config, sliding, type_of(sliding), sliding_theta}, options, &context)};
}

}  // namespace llorch
