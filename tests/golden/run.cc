#include "run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/os.h"
#include "engine/engine.h"

namespace llorch {
namespace {

constexpr int kBlockTokens = 16;

// A prompt on its way through the model, its block tables kept by hand. The pool's first block
// stays unused and the others are taken from the last: positions must go through the table.
class Prompt {
 public:
  Prompt(Backend& backend, const Model& model, DType kv_type, const std::vector<int32_t>& tokens)
      : backend_(backend),
        forward_(model.forward()),
        kv_(model.kv_spec(kBlockTokens, kv_type)),
        tokens_(tokens),
        rope_len_(tokens.size(), static_cast<int32_t>(tokens.size())) {
    const auto length = static_cast<int32_t>(tokens.size());
    width_ = (length - 1) / kBlockTokens + 1;
    backend.create_kv(kv_, std::vector<int32_t>(kv_.groups.size(), 1));
    backend.prepare(forward_, batch(0, length, true));
    backend.create_kv(kv_, std::vector<int32_t>(kv_.groups.size(), width_ + 1));
  }

  std::vector<Sampled> compute(int32_t first, int32_t last) {
    const std::vector<Sampling> sampling(static_cast<size_t>(last - first),
                                         Sampling{.temperature = 0, .keep_logits = true});
    backend_.submit(forward_, batch(first, last, false), sampling);
    return backend_.collect();
  }

 private:
  Batch batch(int32_t first, int32_t last, bool padding) {
    const auto at = static_cast<size_t>(first), count = static_cast<size_t>(last - first);
    positions_.resize(count);
    std::iota(positions_.begin(), positions_.end(), padding ? 0 : first);
    rows_.resize(count);
    std::iota(rows_.begin(), rows_.end(), 0);
    query_start_ = {0, last - first};
    kv_len_ = {last};
    slots_.clear();
    blocks_.clear();
    for (const KvGroup& group : kv_.groups) add_tables(group, first, last, padding);
    return {.tokens = std::span(tokens_).subspan(at, count),
            .positions = positions_,
            .slots = slots_,
            .query_start = query_start_,
            .kv_len = kv_len_,
            .blocks = blocks_,
            .logit_rows = rows_,
            .blocks_per_sequence = padding ? 0 : width_,
            .rope_len = std::span(rope_len_).subspan(at, count)};
  }

  // In a group with a window nothing is left of what the first row cannot see.
  void add_tables(const KvGroup& group, int32_t first, int32_t last, bool padding) {
    const int32_t seen = group.window == 0 ? 0 : std::max(0, first - group.window + 1);
    for (int32_t i = 0; !padding && i < width_; ++i) {
      blocks_.push_back(i < seen / kBlockTokens ? -1 : width_ - i);
    }
    for (int32_t p = first; p < last; ++p) {
      const int32_t slot = (width_ - p / kBlockTokens) * kBlockTokens + p % kBlockTokens;
      slots_.push_back(padding ? -1 : slot);
    }
  }

  Backend& backend_;
  Forward forward_;
  const KvSpec kv_;
  const std::vector<int32_t> tokens_, rope_len_;
  int32_t width_ = 0;
  std::vector<int32_t> positions_, slots_, query_start_, kv_len_, blocks_, rows_;
};

Answer answer_of(Reader& stream) {
  Answer answer;
  while (const auto event = stream.next()) {
    if (const auto* token = std::get_if<TokenEvent>(&*event)) {
      answer.tokens.push_back(token->id);
      answer.logprobs.push_back(token->logprob.value_or(NAN));
    } else if (const auto* failed = std::get_if<FailedEvent>(&*event)) {
      throw Error(ErrorCode::kInternal, std::string(failed->code) + ": " + failed->message);
    }
  }
  return answer;
}

}  // namespace

std::vector<std::vector<float>> prompt_logits(Backend& backend, const Model& model, DType kv_type,
                                              const std::vector<int32_t>& prompt,
                                              const std::vector<int32_t>& steps) {
  Prompt run(backend, model, kv_type, prompt);
  std::vector<std::vector<float>> rows;
  const auto length = static_cast<int32_t>(prompt.size());
  size_t step = 0;
  for (int32_t first = 0; first < length; ++step) {
    const int32_t last = step < steps.size() ? std::min(first + steps[step], length) : length;
    for (Sampled& result : run.compute(first, last)) rows.push_back(std::move(result.logits));
    first = last;
  }
  return rows;
}

Tokenizer byte_tokenizer() {
  const std::string path = "tests/golden/data/llama_tied/tokenizer.json";
  const os::MappedFile file(path);
  const auto bytes = file.bytes();
  return Tokenizer::from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

std::vector<Answer> greedy_answers(Backend& backend, const Model& model, const Tokenizer& tokenizer,
                                   DType kv_type, const std::vector<int32_t>& prompt, int32_t count,
                                   const Load& load, uint64_t* preemptions) {
  EngineOptions options;
  options.context = static_cast<int>(prompt.size()) + count;
  options.step_tokens = load.step_tokens;
  options.kv_type = kv_type;
  if (load.contexts > 0) {
    options.max_batch = 1;
    const uint64_t one = Engine(backend, model, tokenizer, options).kv_bytes();
    options.kv_bytes = static_cast<uint64_t>(load.contexts * static_cast<double>(one));
  }
  options.max_batch = load.requests;
  // What a step is filled with depends on what others took: here, no time at all.
  options.now = [start = std::chrono::steady_clock::now()] { return start; };
  Engine engine(backend, model, tokenizer, options);
  engine.warm_up();
  std::vector<std::shared_ptr<Reader>> streams;
  for (int i = 0; i < load.requests; ++i) {
    Request request;
    request.job_id = std::to_string(i);
    request.prompt = prompt;
    request.max_tokens = count;
    request.sampling.temperature = 0;
    request.sampling.top_logprobs = 0;
    request.ignore_eos = true;
    streams.push_back(engine.submit(std::move(request), {}));
  }
  while (engine.step()) {
  }
  if (preemptions) *preemptions = engine.snapshot().preemptions;
  std::vector<Answer> answers;
  for (const auto& stream : streams) answers.push_back(answer_of(*stream));
  return answers;
}

}  // namespace llorch
