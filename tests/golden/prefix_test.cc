// Conversations on every family: a turn finds computed what the turns before it have in common with
// it, and answers as an engine that has seen nothing, bit for bit.
#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "model/model.h"
#include "model/open_model.h"
#include "ops/backend.h"
#include "reference.h"
#include "run.h"
#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

constexpr int32_t kPerBlock = 16;
using Ints = std::vector<int32_t>;

struct Turn {
  int32_t cached = 0;
  Ints tokens;
  std::vector<uint32_t> logprob_bits;
};

// In the type of the checkpoint, as a worker would.
struct Loaded {
  explicit Loaded(const std::string& golden)
      : checkpoint(open_model(golden_folder(golden))),
        model(Model::load(checkpoint, backend, {})) {}

  Backend backend{BackendOptions{}};
  Checkpoint checkpoint;
  Model model;
};

class Prefix : public ::testing::TestWithParam<std::string> {
 protected:
  Prefix() : prompt_(GoldenReference(GetParam()).prompt) {}

  std::unique_ptr<Engine> engine(Loaded& loaded) {
    return std::make_unique<Engine>(
        loaded.backend, loaded.model, tokenizer_,
        EngineOptions{.context = static_cast<int>(2 * prompt_.size()) + 100,
                      .max_batch = 4,
                      .block_tokens = kPerBlock,
                      .kv_type = loaded.model.dtype()});
  }

  static Turn ask(Engine& engine, const Ints& prompt, int32_t max_tokens) {
    Request request;
    request.job_id = "a";
    request.prompt = prompt;
    request.max_tokens = max_tokens;
    request.sampling = {.temperature = 0, .top_logprobs = 0};
    request.ignore_eos = true;
    const auto reader = engine.submit(std::move(request), {});
    while (engine.step()) {
    }
    Turn turn;
    while (const auto event = reader->next()) {
      if (const auto* started = std::get_if<StartedEvent>(event.get())) {
        turn.cached = started->cached_tokens;
      } else if (const auto* token = std::get_if<TokenEvent>(event.get())) {
        turn.tokens.push_back(token->id);
        turn.logprob_bits.push_back(std::bit_cast<uint32_t>(token->logprob.value_or(1)));
      }
      EXPECT_FALSE(std::holds_alternative<FailedEvent>(*event));
    }
    return turn;
  }

  // Asks, and the same of an engine that has seen nothing. `common` of its tokens have been
  // computed before, in sequences of `lengths` tokens' prompts.
  Turn expect(const Ints& prompt, int32_t max_tokens, int32_t common, const Ints& lengths) {
    const Turn got = ask(*warm_, prompt, max_tokens);
    const Turn want = ask(*engine(cold_model_), prompt, max_tokens);
    EXPECT_EQ(want.cached, 0);
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_EQ(got.logprob_bits, want.logprob_bits);
    const auto length = static_cast<int32_t>(prompt.size());
    const bool one_rope = std::all_of(lengths.begin(), lengths.end(),
                                      [&](int32_t before) { return same_angles(before, length); });
    const int32_t most = std::min(common, length - 1);
    EXPECT_LE(got.cached, most);
    if (one_rope) {
      EXPECT_GE(got.cached, most / kPerBlock * kPerBlock);
    }
    return got;
  }

  // Whether prompts of these lengths turn their tokens by the same angles.
  bool same_angles(int32_t a, int32_t b) const {
    for (const Rope& rope : warm_model_.model.config().ropes) {
      if (rope.trained == 0 || a == b) continue;
      const bool a_long = a > rope.trained, b_long = b > rope.trained;
      if (a_long != b_long || (a_long && rope.ntk_factor > 0)) return false;
    }
    return true;
  }

  const Tokenizer tokenizer_{byte_tokenizer()};
  const Ints prompt_;
  Loaded warm_model_{GetParam()}, cold_model_{GetParam()};
  const std::unique_ptr<Engine> warm_ = engine(warm_model_);
};

TEST_P(Prefix, ATurnFindsWhatItHasInCommonWithThoseBefore) {
  const auto length = [](const Ints& tokens) { return static_cast<int32_t>(tokens.size()); };
  const auto longer = [](Ints tokens, const Ints& more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  };
  const Ints one(prompt_.begin(), prompt_.begin() + length(prompt_) / 2);
  const Turn first = expect(one, 20, 0, {});
  // The answer's last token has not been computed.
  const Ints two = longer(longer(one, first.tokens), {5, 4, 3, 7, 5});
  const Turn second = expect(two, 20, length(one) + 19, {length(one) + 19});
  // The answer is told otherwise from its tenth token on.
  Ints three = longer(two, {second.tokens.begin(), second.tokens.begin() + 9});
  three.push_back(second.tokens[9] == 3 ? 4 : 3);
  expect(three, 8, length(two) + 9, {length(one), length(two) + 19});
  // The same again, and the first one, whose blocks nobody has taken.
  expect(three, 8, length(three), {length(one), length(two) + 19, length(three) + 7});
  expect(one, 20, length(one), {length(two)});
}

INSTANTIATE_TEST_SUITE_P(Families, Prefix, ::testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace llorch
