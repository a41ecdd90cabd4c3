// Times a model's steps on the linked backend, through its public interface: loading, prefill, and
// decode of one and of several sequences together. Knows no engine and no text.
//
//   model_bench --model FILE [--prefill 512,4096] [--sequences 1,2,4,8,16] [--json FILE]
//   model_bench --random q4_k --shape llama-3.1-8b     of random weights, without a file
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "guarded_main.h"
#include "model/model.h"
#include "model/open_model.h"
#include "model_flags.h"
#include "ops/backend.h"
#include "random_checkpoint.h"
#include "random_shape.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr int kBlockTokens = 16;

struct Options {
  bench::ModelFlags model;
  std::string random;  // what random weights are stored as; empty: those of a model
  bench::RandomShape shape;
  std::string json_file;
  std::vector<int> prefill = {512}, sequences = {1, 2, 4, 8, 16};
  int device = 0, depth = 0, tokens = 32, step_tokens = 512, repeats = 3;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Sequences that know their kv blocks: each has a run of them to itself.
class Sequences {
 public:
  // Room for `count` sequences of `length` tokens, and for steps of `rows` rows.
  Sequences(Backend& backend, const Model& model, DType kv_type, int count, int length, int rows)
      : backend_(backend),
        forward_(model.forward()),
        vocab_(model.config().vocab),
        kv_(model.kv_spec(kBlockTokens, kv_type)),
        width_((length - 1) / kBlockTokens + 1) {
    backend.create_kv(kv_, std::vector<int32_t>(kv_.groups.size(), 1));
    fill(1, 0, rows);
    std::fill(positions_.begin(), positions_.end(), 0);
    std::fill(slots_.begin(), slots_.end(), -1);
    wanted_.resize(static_cast<size_t>(std::min(count, rows)));
    std::iota(wanted_.begin(), wanted_.end(), 0);
    blocks_.clear();
    backend.prepare(forward_, batch(0));
    backend.create_kv(kv_, std::vector<int32_t>(kv_.groups.size(), count * width_));
  }

  // Computes the next `rows` tokens after `first` of each of `count` sequences. Returns seconds.
  double step(int count, int first, int rows) {
    fill(count, first, rows);
    const std::vector<Sampling> sampling(wanted_.size(), {.temperature = 0});
    const auto start = Clock::now();
    backend_.submit(forward_, batch(width_), sampling);
    backend_.collect();
    return seconds_since(start);
  }

 private:
  void fill(int count, int first, int rows) {
    for (auto* array : {&tokens_, &positions_, &slots_, &lengths_, &known_, &blocks_, &wanted_}) {
      array->clear();
    }
    start_ = {0};
    for (int s = 0; s < count; ++s) {
      for (int position = first; position < first + rows; ++position) {
        tokens_.push_back((position * 31 + s) % vocab_);
        positions_.push_back(position);
        known_.push_back(first + rows);
      }
      start_.push_back(static_cast<int32_t>(tokens_.size()));
      lengths_.push_back(first + rows);
      wanted_.push_back(start_.back() - 1);
    }
    for (size_t group = 0; group < kv_.groups.size(); ++group) add_tables(count, first, rows);
  }

  void add_tables(int count, int first, int rows) {
    for (int s = 0; s < count; ++s) {
      for (int i = 0; i < width_; ++i) blocks_.push_back(s * width_ + i);
      for (int position = first; position < first + rows; ++position) {
        slots_.push_back(s * width_ * kBlockTokens + position);
      }
    }
  }

  Batch batch(int32_t width) const {
    return {tokens_, positions_, slots_, start_, lengths_, blocks_, wanted_, width, known_};
  }

  Backend& backend_;
  Forward forward_;
  const int vocab_;
  const KvSpec kv_;
  const int width_;
  std::vector<int32_t> tokens_, positions_, slots_, start_, lengths_, known_, blocks_, wanted_;
};

// A prompt of `tokens`, in steps. Returns seconds.
double prefill(Sequences& sequences, int count, int tokens, int step_tokens) {
  double sum = 0;
  const int most = std::max(1, step_tokens / count);
  for (int first = 0; first < tokens; first += most) {
    sum += sequences.step(count, first, std::min(most, tokens - first));
  }
  return sum;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Json prefill_case(Sequences& sequences, int tokens, const Options& o) {
  std::vector<double> rates(static_cast<size_t>(o.repeats));
  for (double& rate : rates) rate = tokens / prefill(sequences, 1, tokens, o.step_tokens);
  std::printf("prefill %5d:             %8.1f tok/s\n", tokens, median(rates));
  return {{"tokens", tokens}, {"tok_s", rates}};
}

Json decode_case(Sequences& sequences, int count, const Options& o) {
  std::vector<double> rates(static_cast<size_t>(o.repeats));
  sequences.step(count, o.depth, 1);  // the first of so many rows may be prepared for
  for (double& rate : rates) {
    double sum = 0;
    for (int token = 0; token < o.tokens; ++token) sum += sequences.step(count, o.depth + token, 1);
    rate = double{1} * count * o.tokens / sum;
  }
  std::printf("decode %2d behind %5d:     %8.1f tok/s\n", count, o.depth, median(rates));
  return {{"sequences", count}, {"depth", o.depth}, {"tokens", o.tokens}, {"tok_s", rates}};
}

Json run(const Options& o) {
  std::optional<bench::RandomCheckpoint> random;
  if (!o.random.empty()) random.emplace(o.shape, *dtype_named(o.random));
  const auto start = Clock::now();
  Backend backend({.device_index = o.device, .threads = o.model.threads});
  std::optional<Checkpoint> opened;
  if (!random) opened.emplace(open_model(o.model.model));
  const Checkpoint& checkpoint = random ? random->checkpoint() : *opened;
  const Model model = Model::load(checkpoint, backend, o.model.load_options());
  const std::string model_name = random ? "random " + o.random : o.model.model;
  Json out = {{"model", model_name},
              {"device", backend.device().name},
              {"dtype", name(model.dtype())},
              {"quantize", o.model.quantize},
              {"load_seconds", seconds_since(start)},
              {"weight_bytes", backend.weight_bytes()},
              {"prefill", Json::array()},
              {"decode", Json::array()}};
  std::printf("%s, %s: %.2f GB of weights, loaded in %.2f s\n", model_name.c_str(),
              backend.device().name.c_str(), static_cast<double>(backend.weight_bytes()) / 1e9,
              out["load_seconds"].get<double>());

  const DType kv_type = o.model.kv_type(model);
  const int most =
      o.sequences.empty() ? 1 : *std::max_element(o.sequences.begin(), o.sequences.end());
  if (!o.prefill.empty()) {
    const int longest = *std::max_element(o.prefill.begin(), o.prefill.end());
    Sequences one(backend, model, kv_type, 1, longest, std::min(longest, o.step_tokens));
    one.step(1, 0, std::min(longest, o.step_tokens));  // page tables and branch predictors
    for (const int tokens : o.prefill) out["prefill"].push_back(prefill_case(one, tokens, o));
  }
  if (!o.sequences.empty()) {
    Sequences many(backend, model, kv_type, most, o.depth + o.tokens,
                   std::max(most, o.step_tokens));
    prefill(many, most, std::max(1, o.depth), o.step_tokens);
    for (const int count : o.sequences) out["decode"].push_back(decode_case(many, count, o));
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  out["peak_rss_bytes"] = int64_t{usage.ru_maxrss} * 1024;
  std::printf("peak memory: %.2f GB\n", static_cast<double>(usage.ru_maxrss) * 1024 / 1e9);
  return out;
}

int main_with(int argc, char** argv) {
  Options o;
  CLI::App app("Times a model's steps.");
  const auto numbers = [&](const char* flag, std::vector<int>& values, const char* help) {
    app.add_option(flag, values, help)->delimiter(',')->check(CLI::PositiveNumber);
  };
  o.model.add_to(app);
  CLI::Option* const file = app.get_option("--model")->required(false);
  const bench::ShapeFlags shape(app);
  CLI::Option* const random =
      app.add_option("--random", o.random, "weights of --shape, as a file would store them so")
          ->check(CLI::IsMember(
              {"f32", "bf16", "f16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "iq4_nl"}))
          ->excludes(file);
  app.add_option("--device", o.device, "which, where there are several");
  numbers("--prefill", o.prefill, "lengths of prompts");
  numbers("--sequences", o.sequences, "how many decode together");
  app.add_option("--depth", o.depth, "tokens before those that are decoded");
  app.add_option("--tokens", o.tokens, "decoded by each sequence")->check(CLI::PositiveNumber);
  app.add_option("--step-tokens", o.step_tokens, "most of a prompt in a step")
      ->check(CLI::PositiveNumber);
  app.add_option("--repeats", o.repeats)->check(CLI::PositiveNumber);
  app.add_option("--json", o.json_file, "write all figures here");
  bool no_prefill = false, no_decode = false;
  app.add_flag("--no-prefill", no_prefill);
  app.add_flag("--no-decode", no_decode);
  CLI11_PARSE(app, argc, argv);
  if (file->empty() && random->empty()) throw std::runtime_error("--model or --random is needed");
  o.shape = shape.shape();
  if (no_prefill) o.prefill.clear();
  if (no_decode) o.sequences.clear();
  const Json figures = run(o);
  if (!o.json_file.empty()) std::ofstream(o.json_file) << figures.dump(1) << '\n';
  return 0;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  return llorch::bench::guarded_main(llorch::main_with, argc, argv);
}
