// The dtypes that benchmarks take on their command lines.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "ops/backend.h"

namespace llorch::bench {

inline std::optional<DType> dtype_named(const std::string& text) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (text == name(type)) return type;
  }
  return std::nullopt;  // auto
}

inline void add_dtype(CLI::App& app, const char* flag, std::string& value, const char* help) {
  app.add_option(flag, value, help)->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}));
}

}  // namespace llorch::bench
