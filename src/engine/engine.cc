#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/memory_reserve.h"
#include "engine/batch.h"
#include "engine/endings.h"
#include "engine/energy.h"
#include "engine/forecast.h"
#include "engine/intake.h"
#include "engine/kv_blocks.h"
#include "engine/kv_sizing.h"
#include "engine/output.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/setup.h"
#include "engine/stall_watch.h"
#include "engine/step.h"

namespace llorch {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

// The outcome of one request's own text and events: what goes wrong there ends that request alone.
template <class Tell>
std::optional<Event> told(Tell tell) {
  try {
    return tell();
  } catch (const std::bad_alloc&) {
    return no_memory();
  } catch (const std::exception& error) {
    return FailedEvent{"INFERENCE_FAILED", error.what(), true};
  }
}

// False if there is no memory for what it does.
template <class Work>
bool may_fail(Work work) {
  try {
    const MayFail may;
    work();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const OutOfMemory&) {
    return false;
  }
}

}  // namespace

struct Engine::Impl {
  Impl(Backend& b, const Model& model, const Tokenizer& t, const EngineOptions& o)
      : backend(b),
        tokenizer(t),
        options(checked_options(o, model.config())),
        vocab(model.config().vocab),
        forward(model.forward()),
        kv_spec(model.kv_spec(options.block_tokens, options.kv_type)),
        kv_shape{kv_spec.groups, options.block_tokens, options.step_tokens, rope_lengths(model)},
        builder(batch_limits(options, model, kv_spec.groups.size())),
        block_counts(take_memory(backend, model, options, kv_spec, kv_shape, builder)),
        blocks(kv_shape, block_counts),
        cost(kv_spec.groups, options.bounds),
        scheduler(
            {options.max_batch, options.step_tokens, model.recompute_above(), draft_rows(options)},
            blocks, cost),
        flights(options.max_batch),
        energy([&b] { return b.energy_j(); },
               static_cast<size_t>(options.max_batch) + static_cast<size_t>(options.max_queue)),
        metrics(std::in_place, options.context),
        forecast(options.max_batch,
                 int64_t{*std::max_element(block_counts.begin(), block_counts.end())} *
                     options.block_tokens),
        board(options.max_batch),
        watch(options.now, options.stall_timeout),
        intake(static_cast<size_t>(options.max_batch) + static_cast<size_t>(options.max_queue),
               JobStore(options.result_retention, options.retained_bytes), watch, requests) {
    open.reserve(static_cast<size_t>(options.max_batch) + static_cast<size_t>(options.max_queue));
    results.reserve(static_cast<size_t>(options.max_batch));
    right.reserve(static_cast<size_t>(options.max_batch));
  }

  bool step();
  bool submit(std::span<const Slice> slices);
  void run_ahead();
  void collect();
  std::vector<Sampled> results_of(const StepInFlight& step);
  void share_energy(const StepInFlight& step);
  void discard();
  Sequence* youngest_of(std::span<const StepPart> parts) const;
  void drain();
  void post_state();
  void start_new(std::span<const Slice> slices);
  void check_drafts(std::span<const StepPart> parts, std::span<const Sampled> sampled);
  void deliver(std::vector<Sampled> sampled);
  void end_cancelled();
  void finish(Sequence* sequence, Event terminal);
  void end_all(const FailedEvent& terminal);
  void publish(int left = 0);
  void publish_forecast();
  OpenWork work_of(const Sequence& sequence) const;

  // Fixed once made.
  Backend& backend;
  const Tokenizer& tokenizer;
  const EngineOptions options;
  const int32_t vocab;
  const Forward forward;
  const KvSpec kv_spec;
  const KvShape kv_shape;

  // The engine thread's own.
  BatchBuilder builder;
  const std::vector<int32_t> block_counts;  // [G]
  KvBlocks blocks;
  StepCost cost;
  Scheduler scheduler;
  StepsInFlight flights;
  std::optional<TimePoint> collected_at;        // the last step, if the next has no reason to wait
  std::vector<std::unique_ptr<Sequence>> open;  // in order of arrival
  struct Result {
    Sequence* sequence = nullptr;
    size_t row = 0, rows = 0;  // of the sampled ones
  };
  std::vector<Result> results;  // who gets tokens of this step
  std::vector<int32_t> right;   // of each part's drafts
  EnergyAccount energy;

  // Shared with all threads.
  std::optional<EngineMetrics> metrics;  // made anew after the warm-up
  OpenRequests requests;
  Forecast forecast;
  std::atomic<int32_t> open_ended_tokens{256};  // of answers whose length nobody has set: the mean
  StepBoard board;
  StallWatch watch;
  Intake intake;
  std::atomic<int32_t> blocks_used{0};
  std::atomic<float> kv_usage{0};
  std::atomic<uint64_t> preemptions{0}, steps_ahead{0};
  std::atomic<uint64_t> prefix_query_tokens{0}, prefix_hit_tokens{0};
  std::atomic<bool> failed{false};
};

bool Engine::Impl::step() {
  const size_t known = open.size();
  intake.take(open);
  for (size_t i = known; i < open.size(); ++i) scheduler.add(open[i].get());
  end_cancelled();
  publish_forecast();
  if (!flights.empty() && flights.oldest().is_for_nobody()) discard();
  if (open.empty()) return false;
  if (flights.empty() && !submit(scheduler.schedule())) {
    Sequence* youngest = youngest_of(flights.newest().parts);
    flights.drop_newest();
    finish(youngest, no_memory());
  } else {
    if (options.steps_in_flight > 1) run_ahead();
    collect();
  }
  publish();
  return true;
}

// False if there was no memory for it: nothing is computed then, but it still counts as in flight.
bool Engine::Impl::submit(std::span<const Slice> slices) {
  energy.step_begins();
  publish();
  start_new(slices);
  const size_t rows_before = flights.empty() ? 0 : flights.newest().wanted();
  const TimePoint now = options.now();
  if (flights.empty() && collected_at) cost.learn_gap(now - *collected_at);
  flights.add(slices, scheduler.load(), now);
  if (flights.size() == 1) post_state();
  try {
    blocks.make_copies(
        [&](size_t g, int32_t from, int32_t to) { backend.copy_block(g, from, to); });
    const Batch& batch = builder.build(slices, rows_before);
    return may_fail([&] { backend.submit(forward, batch, builder.sampling()); });
  } catch (...) {
    flights.drop_newest();
    throw;
  }
}

// If there is no memory for it, it is tried again once it has not to be ahead.
void Engine::Impl::run_ahead() {
  const std::span<const Slice> slices = scheduler.schedule_ahead(flights.oldest().parts);
  if (slices.empty()) return;
  if (submit(slices)) {
    ++steps_ahead;
  } else {
    flights.drop_newest();
  }
}

void Engine::Impl::collect() {
  std::vector<Sampled> sampled;
  const StepInFlight& step = flights.oldest();
  const bool computed = may_fail([&] { sampled = results_of(step); });
  if (!computed) {
    flights.collected(options.now());
    // What has been planned on top of it is for nothing too.
    if (!flights.empty()) discard();
    scheduler.undo(step.parts);
    finish(youngest_of(step.parts), no_memory());
    return;
  }
  share_energy(step);
  check_drafts(step.parts, sampled);
  scheduler.computed(step.parts, right);
  metrics->steps.add();
  const TimePoint now = options.now();
  flights.collected(now);
  collected_at = now;
  watch.step_ended(step.began);
  cost.learn(step.load, now - step.began);
  deliver(std::move(sampled));
  if (!flights.empty()) post_state();
}

std::vector<Sampled> Engine::Impl::results_of(const StepInFlight& step) {
  std::vector<Sampled> sampled = backend.collect();
  if (sampled.size() != step.wanted()) {
    throw Error(ErrorCode::kInternal, "[collect] results; got " + std::to_string(sampled.size()) +
                                          ", want " + std::to_string(step.wanted()));
  }
  return sampled;
}

void Engine::Impl::share_energy(const StepInFlight& step) {
  for (const StepPart& part : step.parts) {
    if (part.sequence) energy.add(part.sequence->energy, part.rows());
  }
  energy.step_ended();
}

// Waits for the step in flight, which is for nobody. It counts in no figure.
void Engine::Impl::discard() {
  may_fail([&] { backend.collect(); });
  flights.collected(options.now());
}

// Nobody is open; what the device says of a step that nobody waits for is of no use.
void Engine::Impl::drain() {
  while (!flights.empty()) {
    try {
      discard();
    } catch (const Error&) {
      flights.drop_newest();
    }
  }
}

Sequence* Engine::Impl::youngest_of(std::span<const StepPart> parts) const {
  const auto is_part = [&](const auto& owned) {
    return std::any_of(parts.begin(), parts.end(),
                       [&](const StepPart& part) { return part.sequence == owned.get(); });
  };
  return std::find_if(open.rbegin(), open.rend(), is_part)->get();
}

void Engine::Impl::post_state() {
  const StepInFlight& step = flights.oldest();
  board.post({.number = metrics->steps.value() + 1,
              .began = step.began,
              .running = scheduler.running(),
              .waiting = scheduler.waiting(),
              .blocks_used = blocks.used(),
              .blocks_total = blocks.total(),
              .kv_usage = blocks.usage(),
              .sequences = {}},
             step.parts);
}

void Engine::Impl::start_new(std::span<const Slice> slices) {
  const TimePoint now = options.now();
  for (const Slice& slice : slices) {
    Sequence& sequence = *slice.sequence;
    if (sequence.started) continue;
    sequence.started = true;
    metrics->scheduled(sequence.times, sequence.prompt_tokens, now);
    const auto failure = told([&]() -> std::optional<Event> {
      sequence.output->start(std::chrono::system_clock::now(), sequence.cached_tokens);
      return std::nullopt;
    });
    // Its slice is part of this step already, so it leaves before the next.
    if (failure) sequence.output->stream().cancel(CancelCause::kSlowReader);
  }
}

// A draft is right if the model gives it too. What follows a wrong one was computed for nothing.
void Engine::Impl::check_drafts(std::span<const StepPart> parts, std::span<const Sampled> sampled) {
  results.clear();
  right.assign(parts.size(), 0);
  size_t row = 0;
  int32_t tokens = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const StepPart& part = parts[i];
    if (part.sequence && part.wants_token) {
      Sequence& sequence = *part.sequence;
      const auto drafts = std::span(sequence.tokens).last(static_cast<size_t>(sequence.drafts));
      const auto wrong = std::ranges::mismatch(drafts, sampled.subspan(row), {}, {},
                                               [](const Sampled& s) { return s.token; });
      right[i] = static_cast<int32_t>(wrong.in1 - drafts.begin());
      results.push_back({&sequence, row, static_cast<size_t>(right[i]) + 1});
      metrics->drafted(sequence.drafts, right[i]);
    }
    row += part.wanted();
    if (part.sequence) tokens += part.tokens + right[i];
  }
  metrics->step_tokens.observe(tokens);
}

void Engine::Impl::deliver(std::vector<Sampled> sampled) {
  const TimePoint now = options.now();
  for (const Result& result : results) {
    Sequence& sequence = *result.sequence;
    const int32_t before = sequence.output->tokens_out();
    std::optional<Event> terminal;
    for (size_t i = 0; i < result.rows && !terminal; ++i) {
      Sampled& next = sampled[result.row + i];
      if (next.token < 0) blocks.forget(sequence.kv);       // who knows what lies in them
      if (i + 1 == result.rows) sequence.take(next.token);  // the others were drafts
      terminal = told([&] {
        const MayFail may;
        return sequence.output->take(std::move(next), now);
      });
    }
    metrics->took(sequence.times, sequence.output->tokens_out() - before, now);
    if (terminal) finish(&sequence, std::move(*terminal));
  }
}

void Engine::Impl::end_cancelled() {
  const TimePoint now = options.now();
  for (size_t i = 0; i < open.size();) {
    Sequence& sequence = *open[i];
    const CancelCause cause = sequence.output->stream().cancelled(now);
    if (cause != CancelCause::kNone) {
      finish(&sequence, cancelled(cause));
    } else if (sequence.deadline && now >= *sequence.deadline) {
      finish(&sequence, timed_out(sequence));
    } else {
      ++i;
    }
  }
}

// The reader learns of the end last: by then the blocks are free, the job id can be used again and
// the snapshot says so.
void Engine::Impl::finish(Sequence* sequence, Event terminal) {
  scheduler.remove(sequence);
  energy.add(sequence->energy, flights.forget(sequence));
  const auto at = std::find_if(open.begin(), open.end(),
                               [&](const auto& owned) { return owned.get() == sequence; });
  const std::unique_ptr<Sequence> owned = std::move(*at);
  open.erase(at);
  const std::optional<double> joules = energy.end(owned->energy);
  if (auto* end = std::get_if<EndEvent>(&terminal)) end->energy_j = joules;
  if (open.empty()) {
    energy.idle();
    collected_at.reset();
  }
  Stream& stream = owned->output->stream();
  intake.release(owned->request.job_id, stream, terminal, options.now());
  metrics->finished(owned->times, outcome_of(terminal), owned->prompt_tokens,
                    owned->output->tokens_out(), options.now());
  publish(1);
  if (owned->request.open_ended && std::holds_alternative<EndEvent>(terminal)) {
    constexpr int32_t kNew = 8;  // the part of the mean that a new one is
    open_ended_tokens =
        open_ended_tokens + (owned->output->tokens_out() - open_ended_tokens) / kNew;
  }
  told([&]() -> std::optional<Event> {
    if (owned->request.on_end) owned->request.on_end(summary(*owned, terminal, options.now()));
    return std::nullopt;
  });
  told([&]() -> std::optional<Event> {
    stream.push(std::move(terminal));
    return std::nullopt;
  });
  intake.left();
}

void Engine::Impl::end_all(const FailedEvent& terminal) {
  intake.close();
  const size_t known = open.size();
  intake.take(open);
  for (size_t i = known; i < open.size(); ++i) scheduler.add(open[i].get());
  while (!open.empty()) finish(open.front().get(), terminal);
}

// `left`: requests that have gone since.
void Engine::Impl::publish(int left) {
  requests.update(scheduler.running(), left);
  blocks_used = blocks.used();
  kv_usage = blocks.usage();
  preemptions = scheduler.preemptions();
  prefix_query_tokens = blocks.query_tokens();
  prefix_hit_tokens = blocks.hit_tokens();
}

void Engine::Impl::publish_forecast() {
  forecast.begin();
  for (const auto& sequence : open) forecast.add(sequence->request.priority, work_of(*sequence));
  forecast.publish(cost);
}

// Any thread: of StepCost it uses what never changes.
OpenWork Engine::Impl::work_of(const Sequence& sequence) const {
  int32_t end = sequence.limit();
  if (sequence.request.open_ended) {
    // As long as others were, or as much again as it has given already.
    const int32_t given = sequence.known() - sequence.prompt_tokens;
    end = std::min(end, sequence.prompt_tokens + std::max(open_ended_tokens.load(), 2 * given));
  }
  const int32_t mean_length = (sequence.known() + end) / 2;
  return {.requests = 1,
          .prompts = sequence.missing() > 1 ? 1 : 0,
          .prompt_tokens = std::max(0, sequence.to_compute() - 1),
          .output_tokens = end - sequence.known(),
          .decode_reads = cost.with_decode({}, mean_length).decode_reads,
          .kv_tokens = mean_length};
}

Engine::Engine(Backend& backend, const Model& model, const Tokenizer& tokenizer,
               const EngineOptions& options)
    : impl_(std::make_unique<Impl>(backend, model, tokenizer, options)) {}

Engine::~Engine() {
  const MustAllocate must;
  impl_->end_all(cancelled(CancelCause::kShutdown));
  impl_->drain();
}

// What ends one request and what keeps the books of all must not fail for want of memory; what a
// request itself asks for may (MayFail).
bool Engine::step() {
  const MustAllocate must;
  refill_memory_reserve();
  try {
    return impl_->step();
  } catch (...) {
    impl_->failed = true;
    impl_->end_all({"INFERENCE_FAILED", "the engine has failed", true});
    throw;
  }
}

void Engine::run() {
  // Never sleeps while a request is open, so a cancel needs no wake-up of its own.
  while (!impl_->intake.stopping()) {
    if (!step()) impl_->intake.wait();
  }
  const MustAllocate must;
  impl_->end_all(cancelled(CancelCause::kShutdown));
  impl_->drain();
}

void Engine::warm_up() {
  impl_->backend.record(impl_->forward);
  // A short and a longer prompt: from the two the step's cost can tell what a row takes.
  for (const int prompt_tokens : {16, 64}) {
    Request request;
    request.job_id = "warm-up";
    // Of different tokens, so that the second finds nothing of the first in the cache.
    request.prompt.assign(static_cast<size_t>(std::min(prompt_tokens, impl_->options.context / 2)),
                          prompt_tokens % impl_->vocab);
    request.max_tokens = std::min(4, impl_->options.context / 2);
    request.ignore_eos = true;
    const std::shared_ptr<Reader> reader = submit(std::move(request), nullptr);
    while (step()) {
    }
    while (const auto event = reader->next()) {
      if (const auto* failure = std::get_if<FailedEvent>(&*event)) {
        throw Error(ErrorCode::kInternal, "[warm_up] " + failure->message);
      }
    }
  }
  impl_->blocks.forget_all();
  impl_->publish();
  impl_->metrics.emplace(impl_->options.context);
  impl_->watch.forget_steps();
  impl_->steps_ahead = 0;
  impl_->intake.expire(TimePoint::max());  // its id too
}

std::shared_ptr<Reader> Engine::submit(Request request, std::function<void()> wake) {
  const Impl& engine = *impl_;
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && id < engine.vocab; };
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (request.prompt.empty() || request.max_tokens < 1 ||
      prompt_tokens + request.max_tokens > engine.options.context ||
      !std::all_of(request.prompt.begin(), request.prompt.end(), in_vocabulary)) {
    throw Error(ErrorCode::kBadRequest, "[engine] prompt of " + std::to_string(prompt_tokens) +
                                            " tokens, max_tokens " +
                                            std::to_string(request.max_tokens) + ", context " +
                                            std::to_string(engine.options.context) +
                                            ", vocabulary " + std::to_string(engine.vocab));
  }
  StreamOptions events{.reader_events = engine.options.stream_events,
                       .keep = !request.fingerprint.empty()};
  if (request.in_one_piece) events.reader_events = std::numeric_limits<size_t>::max();
  if (request.resumable) events.grace = engine.options.resume_grace;
  const auto stream = std::make_shared<Stream>(events);
  auto sequence = std::make_unique<Sequence>(std::move(request));
  const TimePoint now = engine.options.now();
  sequence->times.arrived = now;
  sequence->deadline = sequence->request.deadline;
  if (sequence->request.timeout.count() > 0) {
    const TimePoint end = now + sequence->request.timeout;
    sequence->deadline = sequence->deadline ? std::min(*sequence->deadline, end) : end;
  }
  // Now, so that no step has to: as long as the table of all its tokens.
  sequence->kv.resize(engine.kv_spec.groups.size());
  for (BlockTable& table : sequence->kv) {
    table.blocks.reserve(static_cast<size_t>(sequence->limit() / engine.options.block_tokens) + 1);
  }
  if (engine.options.speculate) sequence->drafter.emplace(sequence->limit());
  sequence->output.emplace(sequence->request, sequence->prompt_tokens, engine.tokenizer,
                           engine.options.eos_ids, stream);
  const OpenRequests::Figures open = engine.requests.read();
  const auto forecast = engine.forecast.of(sequence->request.priority, engine.work_of(*sequence),
                                           open.running + open.waiting);
  return impl_->intake.submit(std::move(sequence), stream, std::move(wake), now, forecast);
}

bool Engine::cancel(const std::string& job_id) {
  return impl_->intake.cancel(job_id, impl_->options.now());
}

void Engine::expire() { impl_->intake.expire(impl_->options.now()); }

bool Engine::fail_stalled() {
  if (!impl_->watch.stalled()) return false;
  impl_->watch.give_up();
  end_streams(CancelCause::kStalled);
  return true;
}

void Engine::end_streams(CancelCause cause) {
  const MustAllocate must;
  for (const auto& stream : impl_->intake.open_streams()) {
    stream->cancel(cause);
    stream->push(cancelled(cause));
  }
}

StepState Engine::last_step() const { return impl_->board.read(); }

EngineSnapshot Engine::snapshot() const {
  EngineSnapshot result;
  const OpenRequests::Figures requests = impl_->requests.read();
  result.running = requests.running;
  result.waiting = requests.waiting;
  result.blocks_used = impl_->blocks_used;
  result.blocks_total = impl_->blocks.total();
  result.kv_usage = impl_->kv_usage;
  result.steps = impl_->metrics->steps.value();
  result.steps_ahead = impl_->steps_ahead;
  result.preemptions = impl_->preemptions;
  result.prefix_query_tokens = impl_->prefix_query_tokens;
  result.prefix_hit_tokens = impl_->prefix_hit_tokens;
  result.tokens_in = impl_->metrics->tokens_in.value();
  result.tokens_out = impl_->metrics->tokens_out.value();
  result.stalled = impl_->watch.stalled();
  result.failed = impl_->failed;
  return result;
}

const EngineMetrics& Engine::metrics() const { return *impl_->metrics; }
std::optional<double> Engine::energy_j() const { return impl_->backend.energy_j(); }
int32_t Engine::block_tokens() const { return impl_->options.block_tokens; }
int32_t Engine::group_blocks() const { return *std::ranges::max_element(impl_->block_counts); }
uint64_t Engine::kv_bytes() const { return kv_pool_bytes(impl_->kv_spec, impl_->block_counts); }
int Engine::context() const { return impl_->options.context; }
int32_t Engine::vocab() const { return impl_->vocab; }
void Engine::start_drain() { impl_->intake.close(); }
bool Engine::wait_drained(std::chrono::steady_clock::time_point deadline) {
  return impl_->intake.wait_drained(deadline);
}
void Engine::stop() { impl_->intake.stop(); }

}  // namespace llorch
