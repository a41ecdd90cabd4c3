// Weights and norms as ops/shapes.h names them in its errors. For a backend's own header, behind
// its Weight::Impl, which has a `name`.
#pragma once

#include "base/error.h"
#include "ops/backend.h"
#include "ops/shapes.h"

namespace llorch {

inline shapes::NamedShape named(const Weight& weight) {
  CHECK(weight.impl != nullptr);
  return {weight.shape, weight.impl->name};
}
inline shapes::NamedShape named(const Weight* weight) {
  return weight ? named(*weight) : shapes::NamedShape{};
}
inline shapes::NamedNorm named(const Norm& norm) {
  return {norm.kind, named(norm.gain), named(norm.bias)};
}
inline shapes::NamedNorm named(const Norm* norm) {
  return norm ? named(*norm) : shapes::NamedNorm{};
}

}  // namespace llorch
