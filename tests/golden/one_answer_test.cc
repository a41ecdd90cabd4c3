// One answer: what a request is told depends on weights, prompt, parameters and seed alone. Random
// mixes of requests run in random engines; of each request's tokens, bits of logprobs and end there
// must be one version.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "formats/testing.h"
#include "model/model.h"
#include "model/open_model.h"
#include "ops/backend.h"
#include "reference.h"
#include "run.h"
#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

constexpr int kContext = 192;  // tokens
constexpr int kLongestPrompt = 130;
constexpr int kLongestOutput = kContext - kLongestPrompt;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int between(int least, int most) { return static_cast<int>(below(most - least + 1)) + least; }
  bool once_in(int n) { return below(n) == 0; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + below(static_cast<int>(values.size())));
  }

 private:
  // The same numbers with every standard library; which are likelier by 2^-60 does not matter.
  int64_t below(int n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::mt19937_64 engine_;
};

// A request and all that it was ever told.
struct Subject {
  Request request;
  std::set<std::vector<std::string>> answers;
};

// What happened in all mixes together, since a test of what never happens can not fail.
struct Happened {
  uint64_t requests = 0, preemptions = 0, cancelled = 0, stopped = 0, ended_by_eos = 0;
  uint64_t hits = 0, copies = 0;    // prefixes from the cache; those that end within a block
  uint64_t drafted = 0, right = 0;  // tokens
};

// A type of the weights, or none for those stored, what they are quantised to, and the cache's.
struct Types {
  std::optional<DType> weights, quantize;
  DType kv;
};
constexpr Types kTypes[] = {{DType::kF32, {}, DType::kF32},   {DType::kBF16, {}, DType::kBF16},
                            {DType::kF16, {}, DType::kF16},   {DType::kF32, {}, DType::kBF16},
                            {DType::kBF16, {}, DType::kF32},  {DType::kF32, {}, DType::kF16},
                            {DType::kF32, {}, DType::kQ8_0},  {DType::kBF16, {}, DType::kQ8_0},
                            {{}, {}, DType::kBF16},           {{}, DType::kQ8_0, DType::kQ8_0},
                            {{}, DType::kQ4_0, DType::kF32},  {{}, DType::kQ4_K, DType::kBF16},
                            {{}, DType::kIQ4_NL, DType::kF16}};

std::string described(const Types& types) {
  return "weights " + std::string(types.weights ? name(*types.weights) : "stored") +
         (types.quantize ? std::string(" to ") + name(*types.quantize) : "") + ", kv " +
         name(types.kv);
}

// A golden's folder, its windows made wider: the goldens' own lie within one chunk of the kernels.
class WideWindows {
 public:
  explicit WideWindows(const std::string& golden) {
    namespace fs = std::filesystem;
    for (const auto& entry : fs::directory_iterator(fs::absolute(golden_folder(golden)))) {
      const std::string file = entry.path().filename().string();
      if (file != "config.json") fs::create_symlink(entry.path(), folder_.file(file));
    }
    std::ifstream config(golden_folder(golden) + "/config.json");
    const std::string text(std::istreambuf_iterator<char>(config), {});
    const std::regex window("(\"sliding_window\": )[1-9][0-9]*");
    folder_.write("config.json", std::regex_replace(text, window, "$01100"));
  }
  std::string path() const { return folder_.path(); }

 private:
  testing::TempFolder folder_;
};

struct Loaded {
  Loaded(const std::string& folder, Types types, int threads)
      : kv_type(types.kv),
        backend({.threads = threads}),
        checkpoint(open_model(folder)),
        model(Model::load(checkpoint, backend,
                          {.dtype = types.weights, .quantize = types.quantize})) {}

  DType kv_type;
  Backend backend;
  Checkpoint checkpoint;
  Model model;
};

void add_bits(std::string& text, int32_t id, float logprob) {
  text += " " + std::to_string(id) + ":" + std::to_string(std::bit_cast<uint32_t>(logprob));
}

// A line for each token's event, then one for the end; none if the request was cancelled.
struct Told {
  std::vector<std::string> lines;
  bool whole = false;
};

Told told(Reader& reader, int block_tokens, Happened& happened) {
  Told result;
  while (const auto event = reader.next()) {
    if (const auto* started = std::get_if<StartedEvent>(event.get())) {
      happened.hits += started->cached_tokens > 0;
      happened.copies += started->cached_tokens % block_tokens > 0;
    } else if (const auto* token = std::get_if<TokenEvent>(event.get())) {
      std::string line = "'" + token->text + "'";
      add_bits(line, token->id, token->logprob.value_or(1));
      for (const TokenLogprob& top : token->top) add_bits(line, top.token, top.logprob);
      result.lines.push_back(std::move(line));
    } else if (const auto* end = std::get_if<EndEvent>(event.get())) {
      happened.stopped += end->reason == StopReason::kStopSequence;
      happened.ended_by_eos += end->reason == StopReason::kEos;
      result.lines.push_back("end " + std::to_string(static_cast<int>(end->reason)) + " after " +
                             std::to_string(end->tokens_out) + " " +
                             end->stop_sequence.value_or(""));
      result.whole = true;
    } else if (const auto* failed = std::get_if<FailedEvent>(event.get())) {
      EXPECT_STREQ(failed->code, "CANCELLED") << failed->message;
      ++happened.cancelled;
    }
  }
  return result;
}

// Greedy, drawn, cut off in every way, with a penalty; with and without logprobs, stops and EOS.
void choose_parameters(Request& request, Random& random) {
  Sampling& sampling = request.sampling;
  sampling.seed = static_cast<uint64_t>(random.between(0, 1 << 30));
  sampling.temperature = random.one_of({0.0f, 0.7f, 1.0f, 1.5f});
  sampling.top_k = random.one_of({0, 0, 3, 40});
  sampling.top_p = random.one_of({1.0f, 0.9f, 0.5f});
  sampling.min_p = random.one_of({0.0f, 0.0f, 0.05f});
  sampling.repetition_penalty = random.one_of({1.0f, 1.0f, 1.3f, 0.8f});
  sampling.top_logprobs = random.one_of({0, 0, 3, -1});
  request.max_tokens = random.between(1, kLongestOutput);
  request.ignore_eos = random.once_in(2);
  if (random.once_in(3)) request.stop = {"e", "th"};
}

// Prompts of one stem that go on differently, as conversations do, and some of their own.
std::vector<Subject> make_subjects(const std::vector<int32_t>& stem, int32_t vocab,
                                   Random& random) {
  std::vector<Subject> subjects(static_cast<size_t>(random.between(3, 7)));
  for (Subject& subject : subjects) {
    std::vector<int32_t>& prompt = subject.request.prompt;
    const auto length = static_cast<size_t>(random.once_in(3) ? random.between(1, 20)
                                                              : random.between(20, kLongestPrompt));
    const auto shared =
        std::min({length, stem.size(), static_cast<size_t>(random.between(0, kLongestPrompt))});
    if (!random.once_in(4)) prompt.assign(stem.begin(), stem.begin() + static_cast<int>(shared));
    while (prompt.size() < length) prompt.push_back(random.between(3, vocab - 1));
    choose_parameters(subject.request, random);
  }
  return subjects;
}

std::string described(const EngineOptions& options, int requests) {
  return std::to_string(requests) + " requests, batch " + std::to_string(options.max_batch) +
         ", steps of " + std::to_string(options.step_tokens) + ", blocks of " +
         std::to_string(options.block_tokens) + ", kv for " +
         std::to_string(options.kv_bytes.value_or(0)) + " bytes";
}

EngineOptions random_options(Loaded& loaded, const Tokenizer& tokenizer, Random& random) {
  EngineOptions options;
  options.context = kContext;
  options.kv_type = loaded.kv_type;
  options.block_tokens = random.one_of({1, 4, 8, 16, 16, 16, 32});
  const int batch = random.one_of({1, 2, 5, 16, 64});
  options.step_tokens = std::max(batch, random.one_of({1, 7, 16, 33, 100, 512}));
  options.max_batch = 1;
  if (!random.once_in(4)) {
    const uint64_t one = Engine(loaded.backend, loaded.model, tokenizer, options).kv_bytes();
    options.kv_bytes = one * static_cast<uint64_t>(random.between(100, 400)) / 100;
  }
  options.max_batch = batch;
  options.speculate = !random.once_in(4);
  return options;
}

struct Running {
  size_t subject = 0;
  std::shared_ptr<Reader> reader;
};

// Requests come while others run; some are cancelled on the way.
void run_mix(Loaded& loaded, std::vector<Subject>& subjects, Random& random, Happened& happened) {
  const Tokenizer tokenizer = byte_tokenizer();
  const EngineOptions options = random_options(loaded, tokenizer, random);
  int to_come = random.between(2, random.one_of({6, 64}));
  SCOPED_TRACE(described(options, to_come));
  Engine engine(loaded.backend, loaded.model, tokenizer, options);
  engine.warm_up();
  std::vector<Running> all;
  const bool in_bursts = random.once_in(2);
  for (bool open = true; open || to_come > 0;) {
    for (int n = in_bursts ? random.between(0, 16) : random.between(0, 1); n > 0 && to_come > 0;
         --n, --to_come) {
      const auto subject =
          static_cast<size_t>(random.between(0, static_cast<int>(subjects.size()) - 1));
      Request request = subjects[subject].request;
      request.job_id = std::to_string(all.size());
      request.priority = random.one_of({0, 0, 0, -3, 5});
      all.push_back({subject, engine.submit(std::move(request), {})});
    }
    if (!all.empty() && random.once_in(20)) {
      engine.cancel(std::to_string(random.between(0, static_cast<int>(all.size()) - 1)));
    }
    open = engine.step();
  }
  happened.requests += all.size();
  happened.preemptions += engine.snapshot().preemptions;
  happened.drafted += engine.metrics().draft_tokens.value();
  happened.right += engine.metrics().right_draft_tokens.value();
  EXPECT_EQ(engine.snapshot().blocks_used, 0);
  for (const Running& one : all) {
    Told answer = told(*one.reader, options.block_tokens, happened);
    auto& answers = subjects[one.subject].answers;
    if (answer.whole) {
      answers.insert(std::move(answer.lines));
    } else {
      const std::vector<std::string>& whole = *answers.begin();
      EXPECT_TRUE(answer.lines.size() < whole.size() &&
                  std::equal(answer.lines.begin(), answer.lines.end(), whole.begin()));
    }
  }
}

// The first answer: nobody else is there, the prompt is computed in one step, nothing is cached or
// guessed.
void run_alone(Loaded& loaded, Subject& subject, Happened& happened) {
  const Tokenizer tokenizer = byte_tokenizer();
  Engine engine(
      loaded.backend, loaded.model, tokenizer,
      {.context = kContext, .max_batch = 1, .speculate = false, .kv_type = loaded.kv_type});
  Request request = subject.request;
  request.job_id = "alone";
  const auto reader = engine.submit(std::move(request), {});
  while (engine.step()) {
  }
  Told answer = told(*reader, 1, happened);
  ASSERT_TRUE(answer.whole);
  subject.answers.insert(std::move(answer.lines));
}

void expect_one_answer(const Subject& subject) {
  if (subject.answers.size() == 1) return;
  const auto &first = *subject.answers.begin(), &second = *std::next(subject.answers.begin());
  size_t line = 0;
  while (line < std::min(first.size(), second.size()) && first[line] == second[line]) ++line;
  const auto at = [&](const auto& lines) { return line < lines.size() ? lines[line] : "nothing"; };
  ADD_FAILURE() << subject.answers.size() << " answers to a prompt of "
                << subject.request.prompt.size() << " tokens; token " << line << " is " << at(first)
                << " and " << at(second);
}

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// The subjects of one checkpoint: each alone, then in two mixes.
void try_golden(const std::string& golden, Types types, Random& random, Happened& happened) {
  std::optional<WideWindows> wide;
  const bool has_config = std::filesystem::exists(golden_folder(golden) + "/config.json");
  if (has_config && random.once_in(2)) wide.emplace(golden);
  const std::string folder = wide ? wide->path() : golden_folder(golden);
  Loaded plain(folder, types, 2);
  auto subjects = make_subjects(GoldenReference(golden).prompt, plain.model.config().vocab, random);
  for (Subject& subject : subjects) run_alone(plain, subject, happened);
  for (int mix = 0; mix < 2; ++mix) {
    const int threads = random.one_of({1, 2, 3, 5});
    SCOPED_TRACE(std::to_string(threads) + " threads");
    Loaded loaded(folder, types, threads);
    run_mix(loaded, subjects, random, happened);
  }
  for (const Subject& subject : subjects) expect_one_answer(subject);
}

// LLORCH_ONE_ANSWER_ROUNDS makes it longer, LLORCH_ONE_ANSWER_SEED another run;
// LLORCH_ONE_ANSWER_EVERY takes every so many goldens alone, where a device is slow.
TEST(OneAnswer, WhateverElseRunsAndHoweverItIsComputed) {
  const uint64_t rounds = number_from_environment("LLORCH_ONE_ANSWER_ROUNDS", 2);
  const uint64_t seed = number_from_environment("LLORCH_ONE_ANSWER_SEED", 1);
  const uint64_t every = number_from_environment("LLORCH_ONE_ANSWER_EVERY", 1);
  Happened happened;
  uint64_t cases = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    for (const std::string& golden : golden_names()) {
      if ((cases + round) % every != 0) {
        ++cases;
        continue;
      }
      const Types types = kTypes[(cases + round) % std::size(kTypes)];
      SCOPED_TRACE(golden + ", " + described(types) + ", seed " + std::to_string(seed) +
                   ", round " + std::to_string(round));
      Random random(seed * 1'000'003 + cases);
      try_golden(golden, types, random, happened);
      ++cases;
      if (HasFailure()) return;
    }
  }
  RecordProperty("requests", std::to_string(happened.requests));
  RecordProperty("preemptions", std::to_string(happened.preemptions));
  RecordProperty("hits", std::to_string(happened.hits));
  RecordProperty("copies", std::to_string(happened.copies));
  RecordProperty("drafted", std::to_string(happened.drafted));
  RecordProperty("right", std::to_string(happened.right));
  if (every > 1) return;
  EXPECT_GT(happened.preemptions, 0u);
  EXPECT_GT(happened.right, 0u);
  EXPECT_GT(happened.drafted, happened.right);
  EXPECT_GT(happened.hits, 0u);
  EXPECT_GT(happened.copies, 0u);
  EXPECT_GT(happened.cancelled, 0u);
  EXPECT_GT(happened.stopped, 0u);
  EXPECT_GT(happened.ended_by_eos, 0u);
}

}  // namespace
}  // namespace llorch
