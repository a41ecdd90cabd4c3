// For tests: a model of zeros whose vocabulary is made for backend fake, where the token after t is
// t + 1. The ids in order:
//   0 a … 25 z, 26 space, 27 ".", 28–30 the three bytes of "€", 31 "!", 32 </s> (special),
//   33 0 … 42 9, 43 the byte C3, which begins a character that the next token does not finish
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/testing.h"
#include "model/model.h"
#include "ops/backend.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

constexpr int32_t kTestVocab = 44;
constexpr int32_t kTestEos = 32;

constexpr int kTestWindow = 24;   // tokens
constexpr int kTestTrained = 64;  // beyond it longrope and dynamic NTK turn by other angles

enum class TestKind {
  kPlain,        // one layer that sees everything
  kWindow,       // one layer with a window
  kAlternating,  // a layer that sees everything, then two with a window
  kLongrope,     // one layer with a window and longrope
  kDynamic,      // one layer that sees everything, with dynamic NTK
};
constexpr TestKind kTestKinds[] = {TestKind::kPlain, TestKind::kWindow, TestKind::kAlternating,
                                   TestKind::kLongrope, TestKind::kDynamic};

// Writes config.json, tokenizer.json and model.safetensors.
void write_test_model(const testing::TempFolder& folder, int context,
                      TestKind kind = TestKind::kPlain);

// All that an engine is made of.
class TestModel {
 public:
  explicit TestModel(int context, TestKind kind = TestKind::kPlain);

 private:
  testing::TempFolder folder_;  // outlives what is opened in it

 public:
  Backend backend;
  Checkpoint checkpoint;
  Tokenizer tokenizer;
  Model model;
};

// Ids of a text of a–z, space, ".", "!", 0–9.
std::vector<int32_t> test_ids(std::string_view text);

}  // namespace llorch
