// A tape that computes a step on the host and has each op of it done by the device too, from the
// host's inputs: so differences do not add up, and what differs is known by name. Knows no family.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/probe.h"
#include "ops/backend.h"
#include "ops/oracle.h"

namespace llorch {

// How near to its bound the worst result came: 1 is at it.
struct ParityReport {
  int layers = 0, checks = 0;
  double worst = 0;  // of the ops, each alone
  std::string worst_at = {};
  double step = 0;  // of the step as a whole
};

// Has Ops' members, with a Matrix for a Tensor. Those that check throw Error{kDevice}, naming layer
// and tensors, if a result is further from the oracle's than it may be or not finite.
class ParityOps {
 public:
  using Matrix = ref::Matrix;

  // `probe` null: nothing is checked. All must outlive it.
  ParityOps(const Oracle& oracle, Probe* probe, std::span<const int32_t> tokens, DType kv_type,
            ParityReport* report);

  Matrix embed(const Weight& table, float scale = 1);
  Matrix norm(const Matrix& x, const Norm& n);
  Matrix add_norm(const Matrix& x, Matrix* sum, const Norm& n);
  void add(const Matrix& x, Matrix* sum);
  Matrix linear(const Matrix& x, const Weight& w);
  Matrix attention(const Matrix& qkv, const Attention& a);
  Matrix mlp(const Matrix& x, const Weight& gate_up, const Weight& down, Act act);
  Matrix plain_mlp(const Matrix& x, const Weight& up, const Weight& down, Act act);
  Matrix moe(const Matrix& x, const Moe& m);
  // Some of the logits; a tape's end that gives no tensor.
  void check_logits(const Matrix& x, const Weight& head, float softcap);

 private:
  using Inputs = std::vector<const Matrix*>;
  std::string name_of(const Weight& weight);
  std::string name_of(const Norm& norm);
  ExpectedProduct product(const Expected& x, const Weight& w);
  // Both products of an MLP, checked one by one, and what they come to together.
  Expected two_products(const Matrix& x, const Weight& up, const Weight& down, Act act, bool gated);
  Expected mixture(const Matrix& x, const Moe& m);
  void check(const std::string& what, const Expected& want, const Inputs& inputs,
             const Probe::Op& op);
  void compare(const std::string& what, const Matrix& got, const Matrix& want,
               const Matrix& allowed);

  const Oracle& oracle_;
  Probe* const probe_;
  const std::vector<int32_t> tokens_, rope_len_;
  const DType kv_type_;
  ParityReport& report_;
  int layer_ = -1;  // of the weight named last
};

}  // namespace llorch
