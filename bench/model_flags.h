// The flags of the worker by which a model is loaded, for benchmarks that load one.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "model/model.h"
#include "ops/dtype.h"

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
    app.add_option("--kv-dtype", kv_dtype, "auto: f32 beside f32 weights, else bf16")
        ->check(CLI::IsMember({"auto", "f32", "bf16", "f16", "q8_0"}));
  }

  LoadOptions load_options() const {
    return {.dtype = dtype_named(dtype), .quantize = dtype_named(quantize)};
  }
  DType kv_type(const Model& loaded) const {
    const DType otherwise = loaded.dtype() == DType::kF32 ? DType::kF32 : DType::kBF16;
    return dtype_named(kv_dtype).value_or(otherwise);
  }
};

}  // namespace llorch::bench
