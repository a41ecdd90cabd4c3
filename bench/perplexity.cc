// How well a model predicts a text, and how far its predictions are from those that
// llama-perplexity of llama.cpp has stored for another file of the same model: on the same tokens,
// of the same rows.
//
//   llama-perplexity -m f32.gguf -f text --kl-divergence-base base
//   perplexity --model q8_0.gguf --base base --bos 0 [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "guarded_main.h"
#include "model/model.h"
#include "model/open_model.h"
#include "model_flags.h"
#include "ops/backend.h"
#include "tests/golden/run.h"

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

// The file: "_logits_", tokens of a chunk, vocabulary, chunks (int32 each), all tokens, and then
// for the rows of each chunk's second half but the last: scale and least log-probability (f32), and
// a 16-bit number for each token's, padded to an even count.
class Base {
 public:
  explicit Base(const std::string& path) : in_(path, std::ios::binary), path_(path) {
    char magic[8];
    read(magic, sizeof magic);
    if (std::memcmp(magic, "_logits_", sizeof magic) != 0) fail("holds no logits");
    for (int32_t* field : {&length, &vocab, &chunks}) read(field, sizeof *field);
    if (length < 4 || vocab < 1 || chunks < 1) fail("has sizes that cannot be");
    tokens_.resize(static_cast<size_t>(length) * static_cast<size_t>(chunks));
    read(tokens_.data(), tokens_.size() * sizeof(int32_t));
    row_.resize(static_cast<size_t>((vocab + 1) / 2 * 2 + 4));
  }

  int32_t length = 0, vocab = 0, chunks = 0;

  std::vector<int32_t> chunk(int32_t index) const {
    const auto first = tokens_.begin() + int64_t{index} * length;
    return {first, first + length};
  }
  // The rows follow each other in the file. Log-probabilities.
  std::vector<float> next_row() {
    read(row_.data(), row_.size() * sizeof(uint16_t));
    float scale = 0, least = 0;
    std::memcpy(&scale, &row_[0], sizeof scale);
    std::memcpy(&least, &row_[2], sizeof least);
    std::vector<float> values(static_cast<size_t>(vocab));
    for (size_t i = 0; i < values.size(); ++i) values[i] = scale * row_[i + 4] + least;
    return values;
  }

 private:
  void read(void* to, size_t bytes) {
    if (!in_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes)))
      fail("is too short");
  }
  [[noreturn]] void fail(const char* why) const {
    throw Error(ErrorCode::kCorruptFile, path_ + " " + why);
  }

  std::ifstream in_;
  const std::string path_;
  std::vector<int32_t> tokens_;
  std::vector<uint16_t> row_;
};

struct Sums {
  double nll = 0, base_nll = 0;
  int64_t same_top = 0;
  std::vector<double> divergences;  // of each row
};

// Of logits: what to subtract from one to have its log-probability.
double log_sum(const std::vector<float>& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum);
}

void add_row(const std::vector<float>& logits, const std::vector<float>& base, int32_t next,
             Sums* sums) {
  constexpr float kLeast = -16;  // what is less likely is not stored exactly
  const double whole = log_sum(logits);
  const auto at = static_cast<size_t>(next);
  sums->nll += whole - logits[at];
  sums->base_nll -= base[at];
  double divergence = 0;
  for (size_t i = 0; i < base.size(); ++i) {
    if (base[i] > kLeast) divergence += std::exp(base[i]) * (base[i] - logits[i] + whole);
  }
  sums->divergences.push_back(divergence);
  const auto top = [](const std::vector<float>& values) {
    return std::max_element(values.begin(), values.end()) - values.begin();
  };
  sums->same_top += top(logits) == top(base);
}

struct Options {
  bench::ModelFlags model;
  std::string base, json_file;
  int32_t bos = -1;
};

Json measure(const Options& o) {
  Base base(o.base);
  Backend backend({.threads = o.model.threads});
  const Checkpoint checkpoint = open_model(o.model.model);
  const Model model = Model::load(checkpoint, backend, o.model.load_options());
  if (model.config().vocab != base.vocab) {
    throw Error(ErrorCode::kBadArgument, o.base + " is of another vocabulary");
  }
  const DType kv_type = o.model.kv_type(model);
  Sums sums;
  for (int32_t i = 0; i < base.chunks; ++i) {
    std::vector<int32_t> tokens = base.chunk(i);
    if (o.bos >= 0) tokens[0] = o.bos;
    const auto rows = prompt_logits(backend, model, kv_type, tokens);
    for (auto at = static_cast<size_t>(base.length / 2); at + 1 < tokens.size(); ++at) {
      add_row(rows[at], base.next_row(), tokens[at + 1], &sums);
    }
  }
  std::sort(sums.divergences.begin(), sums.divergences.end());
  const auto count = static_cast<double>(sums.divergences.size());
  double divergence = 0;
  for (const double row : sums.divergences) divergence += row;
  return {{"model", o.model.model},
          {"device", backend.device().name},
          {"rows", sums.divergences.size()},
          {"perplexity", std::exp(sums.nll / count)},
          {"base_perplexity", std::exp(sums.base_nll / count)},
          {"kl_mean", divergence / count},
          {"kl_p99", sums.divergences[sums.divergences.size() * 99 / 100]},
          {"kl_max", sums.divergences.back()},
          {"same_top", static_cast<double>(sums.same_top) / count}};
}

int main_with(int argc, char** argv) {
  Options o;
  CLI::App app("Perplexity of a model, and its divergence from stored predictions.");
  o.model.add_to(app);
  app.add_option("--base", o.base, "what llama-perplexity --kl-divergence-base wrote")->required();
  app.add_option("--bos", o.bos, "the token that begins a chunk, in place of its first; -1: none");
  app.add_option("--json", o.json_file, "write the figures here");
  CLI11_PARSE(app, argc, argv);
  const Json figures = measure(o);
  for (const auto& [key, value] : figures.items()) {
    std::printf("%-16s %s\n", key.c_str(), value.dump().c_str());
  }
  if (!o.json_file.empty()) std::ofstream(o.json_file) << figures.dump(1) << '\n';
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  return llorch::bench::guarded_main(llorch::main_with, argc, argv);
}
