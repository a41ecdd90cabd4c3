// ggml's element types: how large their blocks are, and what f32 values they stand for. Knows no
// file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "ops/backend.h"

namespace llorch {

// One of ggml's element types, or our F8_E4M3. Values are stored in blocks along a row; F32 and its
// like are blocks of one.
struct GgmlType {
  uint32_t id;       // as a GGUF file has it; of F8_E4M3 none that one can have
  const char* name;  // "Q4_K"
  int block_values;
  int block_bytes;
  // One block to `block_values` floats; null: a type this worker cannot read.
  void (*decode)(const uint8_t* block, float* values);
};

// The type that a backend takes these blocks for, and the other way round; none: they have to be
// decoded.
std::optional<DType> dtype_of(const GgmlType& type);
const GgmlType& ggml_type_of(DType quantised);

// Null if ggml has no such type, or removed it.
const GgmlType* find_ggml_type(uint32_t id);
// The types that can be read, for messages: "F32, F16, ...".
std::string readable_ggml_types();

// Whole blocks of a readable type to f32, bit for bit as the `gguf` Python package gives them (a
// NaN is a NaN, whatever its payload). `values` has room for all; `blocks` may have any alignment.
void dequantize(const GgmlType& type, std::span<const std::byte> blocks, float* values);

}  // namespace llorch
