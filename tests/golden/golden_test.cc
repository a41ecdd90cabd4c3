// Whole models against transformers: logits of every row of a prompt, and greedy tokens. The
// references are tools/make_goldens.py's.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <system_error>
#include <vector>

#include <gtest/gtest.h>

#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "model/model.h"
#include "model/open_model.h"
#include "ops/backend.h"

namespace llorch {
namespace {

constexpr int kBlockTokens = 16;
constexpr double kTolerance = 1e-4;  // of a row's max - min
// Out of order, with the pool's first block unused: positions must go through the table.
const std::vector<int32_t> kBlocks = {5, 2, 8, 1, 7, 3, 6, 4};
constexpr int kPoolBlocks = 9;

std::string data_folder() { return "tests/golden/data/"; }

template <class T>
std::vector<T> values(const std::vector<StoredTensor>& tensors, const std::string& name) {
  for (const StoredTensor& tensor : tensors) {
    if (tensor.name == name) {
      std::vector<T> out(tensor.bytes.size() / sizeof(T));
      std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
      return out;
    }
  }
  ADD_FAILURE() << "the reference has no " << name;
  return {};
}

struct Reference {
  explicit Reference(const std::string& golden) {
    const std::string path = data_folder() + golden + "/reference.safetensors";
    const os::MappedFile file(path);
    const auto tensors = parse_safetensors(file.bytes(), path);
    prompt = values<int32_t>(tensors, "prompt");
    greedy = values<int32_t>(tensors, "greedy");
    logits = values<float>(tensors, "logits");
  }
  std::vector<int32_t> prompt, greedy;
  std::vector<float> logits;  // [prompt, V]
};

// The tables of a step whose rows end at `length`: the same blocks in every kv group, and in one
// with a window nothing of what the first row cannot see.
struct Tables {
  Tables(const KvSpec& kv, int32_t first, int32_t length) {
    for (const KvGroup& group : kv.groups) {
      const int32_t seen = group.window == 0 ? 0 : std::max(0, first - group.window + 1);
      for (size_t i = 0; i < kBlocks.size(); ++i) {
        const bool gone = static_cast<int32_t>(i) < seen / kBlockTokens;
        blocks.push_back(gone ? -1 : kBlocks[i]);
      }
      for (int32_t p = first; p < length; ++p) {
        slots.push_back(kBlocks[static_cast<size_t>(p / kBlockTokens)] * kBlockTokens +
                        p % kBlockTokens);
      }
    }
  }
  std::vector<int32_t> slots, blocks;
};

// Start-up: kv for one block a group, then a padding step as long as the prompt.
void prepare(Backend& backend, const Model& model, const std::vector<int32_t>& prompt) {
  const KvSpec kv = model.kv_spec(kBlockTokens, DType::kF32);
  backend.create_kv(kv, std::vector<int32_t>(kv.groups.size(), 1));
  const auto count = static_cast<int32_t>(prompt.size());
  const std::vector<int32_t> positions(prompt.size()), lengths(prompt.size(), count);
  const std::vector<int32_t> slots(kv.groups.size() * prompt.size(), -1);
  const std::vector<int32_t> query_start = {0, count}, kv_len = {count};
  std::vector<int32_t> rows(prompt.size());
  std::iota(rows.begin(), rows.end(), 0);
  backend.prepare(model.forward(), {.tokens = prompt,
                                    .positions = positions,
                                    .slots = slots,
                                    .query_start = query_start,
                                    .kv_len = kv_len,
                                    .blocks = {},
                                    .logit_rows = rows,
                                    .blocks_per_sequence = 0,
                                    .rope_len = lengths});
}

// One sequence on the backend, its block tables kept by hand.
class Sequence {
 public:
  // `prompt` tokens will come before the first that is decoded.
  Sequence(Backend& backend, const Model& model, size_t prompt)
      : backend_(backend),
        forward_(model.forward()),
        kv_(model.kv_spec(kBlockTokens, DType::kF32)),
        prompt_(static_cast<int32_t>(prompt)),
        recompute_above_(model.recompute_above()) {
    backend.create_kv(kv_, std::vector<int32_t>(kv_.groups.size(), kPoolBlocks));
  }

  // Appends `tokens` in one step; a result for each of them.
  std::vector<Sampled> append(const std::vector<int32_t>& tokens) {
    const bool outgrown = recompute_above_ > 0 && known() <= recompute_above_;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    if (!outgrown || known() <= recompute_above_) return compute(tokens);
    // All of it anew, in steps as long as the prompt.
    std::vector<Sampled> results;
    for (length_ = 0; length_ < known();) {
      const auto first = tokens_.begin() + length_;
      results = compute({first, first + std::min(prompt_, known() - length_)});
    }
    return {results.end() - static_cast<ptrdiff_t>(tokens.size()), results.end()};
  }

 private:
  int32_t known() const { return std::max(prompt_, static_cast<int32_t>(tokens_.size())); }

  std::vector<Sampled> compute(const std::vector<int32_t>& tokens) {
    const auto count = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size()), rope_len, rows(tokens.size());
    std::iota(positions.begin(), positions.end(), length_);
    std::iota(rows.begin(), rows.end(), 0);
    const Tables tables(kv_, length_, length_ + count);
    length_ += count;
    // As the engine has it.
    for (const int32_t p : positions) {
      rope_len.push_back(recompute_above_ > 0 ? known() : std::max(prompt_, p + 1));
    }
    const std::vector<int32_t> query_start = {0, count}, kv_len = {length_};
    const Batch batch{.tokens = tokens,
                      .positions = positions,
                      .slots = tables.slots,
                      .query_start = query_start,
                      .kv_len = kv_len,
                      .blocks = tables.blocks,
                      .logit_rows = rows,
                      .blocks_per_sequence = static_cast<int32_t>(kBlocks.size()),
                      .rope_len = rope_len};
    const std::vector<Sampling> sampling(tokens.size(),
                                         Sampling{.temperature = 0, .keep_logits = true});
    backend_.submit(forward_, batch, sampling);
    return backend_.collect();
  }

  Backend& backend_;
  Forward forward_;
  const KvSpec kv_;
  const int32_t prompt_, recompute_above_;
  std::vector<int32_t> tokens_;
  int32_t length_ = 0;
};

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  Golden()
      : checkpoint_(open_model(data_folder() + GetParam())),
        model_(Model::load(checkpoint_, backend_, {.dtype = DType::kF32, .progress = {}})),
        reference_(GetParam()) {
    prepare(backend_, model_, reference_.prompt);
  }

  void expect_row(size_t row, const std::vector<float>& got) const {
    const auto vocab = static_cast<size_t>(model_.config().vocab);
    ASSERT_EQ(got.size(), vocab);
    ASSERT_LE((row + 1) * vocab, reference_.logits.size());
    const float* want = reference_.logits.data() + row * vocab;
    const auto [least, most] = std::minmax_element(want, want + vocab);
    for (size_t i = 0; i < vocab; ++i) {
      ASSERT_NEAR(got[i], want[i], kTolerance * (*most - *least))
          << "row " << row << ", token " << i;
    }
  }

  Backend backend_{BackendOptions{}};
  Checkpoint checkpoint_;
  Model model_;
  Reference reference_;
};

TEST_P(Golden, GivesTheReferenceLogitsInOnePrefill) {
  const auto results =
      Sequence(backend_, model_, reference_.prompt.size()).append(reference_.prompt);
  ASSERT_EQ(results.size(), reference_.prompt.size());
  for (size_t row = 0; row < results.size(); ++row) {
    expect_row(row, results[row].logits);
  }
}

TEST_P(Golden, GivesTheSameLogitsHoweverThePromptIsCut) {
  const auto whole = Sequence(backend_, model_, reference_.prompt.size()).append(reference_.prompt);
  Sequence sequence(backend_, model_, reference_.prompt.size());
  const auto begin = reference_.prompt.begin();
  size_t row = 0;
  for (const int chunk : {1, 7, 16, 33, 2, 5}) {
    const auto first = begin + static_cast<ptrdiff_t>(row);
    for (const Sampled& result : sequence.append({first, first + chunk})) {
      expect_row(row, result.logits);
      EXPECT_EQ(result.logits, whole[row].logits) << "row " << row;
      ++row;
    }
  }
  EXPECT_EQ(row, reference_.prompt.size());
}

TEST_P(Golden, DecodesTheReferenceTokens) {
  Sequence sequence(backend_, model_, reference_.prompt.size());
  std::vector<int32_t> tokens = {sequence.append(reference_.prompt).back().token};
  while (tokens.size() < reference_.greedy.size()) {
    tokens.push_back(sequence.append({tokens.back()}).back().token);
  }
  EXPECT_EQ(tokens, reference_.greedy);
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  std::error_code not_there;  // AreAllThere then fails
  for (const auto& entry : std::filesystem::directory_iterator(data_folder(), not_there)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Transformers, Golden, ::testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

// A folder lost from the checkout must not pass for success.
TEST(Goldens, AreAllThere) { EXPECT_GE(golden_names().size(), 12u); }

}  // namespace
}  // namespace llorch
