// What an op must come to, from weights as a checkpoint has them, and how far from that a healthy
// device may be if its inputs are the same. Sums are in double, on all cores. Knows no device and
// no file.
//
// A sum of n products in f32 is rounded n times, each time by at most epsilon / 2 of a partial sum;
// as the signs vary, these errors grow like the root of n. How large partial sums are is known: the
// largest is looked for, and |w| |x| / sqrt(n) is what a sum of products of any signs comes to.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ops/backend.h"
#include "ops/ref_ops.h"

namespace llorch {

// Rows of a weight that devices keep in one type. read() gives one of them, rounded to that type;
// any thread.
struct SourceRows {
  int32_t count = 0;
  DType type = DType::kF32;
  std::function<void(int32_t row, std::span<float> values)> read;
};

// What a packed weight was made from.
struct WeightSource {
  std::string name = {};  // of its tensors
  int layer = -1;         // -1: of none
  Shape shape = {};
  std::vector<SourceRows> rows = {};  // one after the other
  std::vector<float> bias = {};       // [rows], or none
};
using WeightSources = std::unordered_map<const void*, WeightSource>;  // by Weight::impl.get()

// A result, and how far from it a device's may be, element by element.
struct Expected {
  ref::Matrix values, allowed;
};

// A product of inputs that a device may have otherwise: `carried` is what that makes of the result,
// the root of the squares of what each input's error does. Without rows if the inputs are exact.
struct ExpectedProduct : Expected {
  ref::Matrix carried;
  Expected whole() const;
};

class Oracle {
 public:
  // `sources` must outlive it. `device` says what products round activations to.
  Oracle(const WeightSources& sources, const BackendInfo& device);

  const WeightSource& source(const Weight& weight) const;

  Expected embed(std::span<const int32_t> tokens, const Weight& table, float scale) const;
  Expected norm(const ref::Matrix& x, const Norm& n) const;
  Expected add(const ref::Matrix& x, const ref::Matrix& sum) const;
  // x.allowed may have no rows: x is exact.
  ExpectedProduct linear(const Expected& x, const Weight& w) const;
  // act(gate) * up of what stacks gate's columns and up's, or act(up).
  Expected activate(const Expected& up, Act act, bool gated) const;
  // Rows of one sequence from position 0 on, its kv cache in `kv_type`.
  Expected attention(const ref::Matrix& qkv, const Attention& a, std::span<const int32_t> rope_len,
                     DType kv_type) const;
  // The logits of some tokens, for every row.
  Expected logits(const ref::Matrix& x, const Weight& head, std::span<const int32_t> tokens,
                  float softcap) const;
  std::vector<float> vector(const Weight& weight) const;
  // The coarsest relative rounding that a step goes through, with weights of all sources.
  double unit(DType kv_type) const;

 private:
  ExpectedProduct product(const Expected& x, const WeightSource& w,
                          std::span<const int32_t> rows) const;
  DType rounds_to(DType weights) const;

  const WeightSources& sources_;
  const BackendInfo& device_;
};

// How far an f32 sum of n products may be from the exact one whose partial sums are about `size`.
double sum_error(int n, double size);

}  // namespace llorch
