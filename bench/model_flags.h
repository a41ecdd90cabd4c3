// The flags of the worker by which a model is loaded, for benchmarks that load one.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "model/model.h"
#include "ops/backend.h"

namespace llorch::bench {

struct ModelFlags {
  std::string model, dtype = "auto", quantize = "none", kv_dtype = "auto";
  int threads = 0;

  void add_to(CLI::App& app) {
    const auto plain = CLI::IsMember({"auto", "f32", "bf16", "f16"});
    app.add_option("--model", model, "a folder or a GGUF file")->required();
    app.add_option("--threads", threads, "0: as many as the backend finds right");
    app.add_option("--dtype", dtype, "of the weights; auto: as they are stored")->check(plain);
    app.add_option("--quantize", quantize, "what weights become that are not quantised")
        ->check(CLI::IsMember({"none", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "iq4_nl"}));
    app.add_option("--kv-dtype", kv_dtype, "auto: f32 beside f32 weights, else bf16")->check(plain);
  }

  LoadOptions load_options() const { return {.dtype = named(dtype), .quantize = named(quantize)}; }
  DType kv_type(const Model& loaded) const {
    const DType otherwise = loaded.dtype() == DType::kF32 ? DType::kF32 : DType::kBF16;
    return named(kv_dtype).value_or(otherwise);
  }

 private:
  // None for "auto" and "none".
  static std::optional<DType> named(const std::string& text) {
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                             DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL}) {
      if (text == name(type)) return type;
    }
    return std::nullopt;
  }
};

}  // namespace llorch::bench
