// What all families have in common. Each is a small file and one alternative of Model's variant.
#pragma once

#include "formats/json_reader.h"
#include "model/decoder.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace llorch {

// What config.json may leave out, as transformers fills it in.
struct FamilyDefaults {
  int kv_heads = 0;  // 0 = as many as heads
  int head_dim = 0;  // 0 = hidden / heads
  int context = 0;
  double norm_eps = 1e-6;
  const char* eps_key = "rms_norm_eps";
  const char* act_key = "hidden_act";
  const char* act = "silu";
  bool tied_head = false;
  double rope_theta = 10'000;
  bool partial_rotary = false;  // partial_rotary_factor may leave some of a head's dimensions out
  double rotary_part = 1;
  bool longrope = false;  // and no other scaling
};

// Each family adds:
//   static constexpr FamilyDefaults kDefaults;
//   Sets in `out` what this family alone decides; what all have is set already, one rope for all
//   layers is read afterwards unless there are ropes. Throws Error{kCorruptFile} or
//   Error{kUnsupported} naming the key.
//   static void configure(const JsonReader& config, ModelConfig* out);
// And a step() of its own where its wiring is not the decoder's.
struct FamilyModel {
  ModelConfig config;
  Weights weights;

  // What the head takes behind the first `layers` layers, [T] -> [T, D].
  template <class Tape>
  TensorOf<Tape> step(Tape& op, int layers) const {
    return decoder_step(op, config, weights, layers);
  }
};

}  // namespace llorch
