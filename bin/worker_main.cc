// The worker's life: flags -> listen -> device -> model -> warm-up -> ready callback -> drain
// (contract, sections 2 to 4). The only file that sees everything.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <latch>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory_reserve.h"
#include "base/os.h"
#include "engine/engine.h"
#include "exits.h"
#include "formats/checkpoint.h"
#include "load_tokenizer.h"
#include "model/model.h"
#include "model/open_model.h"
#include "model/parity.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "pool/ready_callback.h"
#include "server/server.h"
#include "stall_guard.h"
#include "template/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSignalCheck{100};
constexpr std::chrono::seconds kExpiryCheck{1};
constexpr std::chrono::seconds kLastStep{5};
constexpr size_t kMemoryReserve = 1 << 20;
constexpr int kDefaultContext = 8192;  // unless --context-length asks for more

int64_t ms_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
}

// What the engine thread and the signal thread tell the main thread.
class Lifecycle {
 public:
  void set_ready(const Service& service) {
    change([&] { service_ = service; });
  }
  void set_failed(std::exception_ptr failure) {
    change([&] { failure_ = failure; });
  }
  // The second call ends what still runs.
  void ask_to_stop() {
    change([&] {
      if (stop_asked_ && service_) service_->engine->stop();
      stop_asked_twice_ = stop_asked_;
      stop_asked_ = true;
    });
    stop_.request_stop();
  }
  bool stop_asked_twice() const { return stop_asked_twice_; }
  // The engine is about to go.
  void forget_service() {
    change([&] { service_.reset(); });
  }

  // Blocks until the model can serve; none if a stop was asked for first. Rethrows a failed start.
  std::optional<Service> wait_ready() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return service_ || failure_ || stop_asked_; });
    if (stop_asked_) return std::nullopt;
    if (failure_) std::rethrow_exception(failure_);
    return service_;
  }
  // Blocks until a stop is asked for, and meanwhile frees the answers that are kept no longer.
  // Rethrows what ended the engine before.
  void wait_stop(Engine& engine) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kExpiryCheck, [&] { return failure_ || stop_asked_; })) {
      lock.unlock();
      engine.expire();
      lock.lock();
    }
    if (failure_) std::rethrow_exception(failure_);
  }
  std::exception_ptr failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  template <class Change>
  void change(Change change) {
    {
      const std::lock_guard lock(mutex_);
      change();
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Service> service_;
  std::exception_ptr failure_;
  bool stop_asked_ = false;
  std::atomic<bool> stop_asked_twice_{false};
  std::stop_source stop_;
};

// A log line every ten percent, and a bar on stderr if somebody watches.
class LoadProgress {
 public:
  ~LoadProgress() {
    if (terminal_ && last_shown_ >= 0) std::fputc('\n', stderr);
  }
  void operator()(int percent) {
    if (percent / 10 > last_logged_ / 10) {
      log(Level::kInfo, "model_load_progress", {{"percent", percent}});
      last_logged_ = percent;
    }
    if (!terminal_ || percent == last_shown_) return;
    last_shown_ = percent;
    const std::string bar(static_cast<size_t>(percent) * 2 / 5, '#');
    std::fprintf(stderr, "\rloading [%-40s] %3d %%", bar.c_str(), percent);
    std::fflush(stderr);
  }

 private:
  const bool terminal_ = os::stderr_is_terminal();
  int last_logged_ = 0, last_shown_ = -1;
};

// Everything that lives on the engine thread, made in the order of the life cycle.
class Worker {
 public:
  explicit Worker(const Config& config) : config_(config) {
    backend_.emplace(
        BackendOptions{.device_index = config.device_index, .threads = config.threads.value_or(0)});
    backend_->verify_device();
    const Device device = backend_->device();
    log(Level::kInfo, "device_ready",
        {{"name", device.name},
         {"total_bytes", device.total_bytes},
         {"free_bytes", device.free_bytes},
         {"verified", true}});
    load();
    verify();
    const auto start = Clock::now();
    stall_guard_.emplace(*engine_);
    engine_->warm_up();
    stall_guard_->set_ready();
    log(Level::kInfo, "warmup_complete", {{"ms", ms_since(start)}});
  }

  Engine& engine() { return *engine_; }
  Service service() {
    return {.engine = &*engine_,
            .tokenizer = &*tokenizer_,
            .chat = &*chat_,
            .architecture = model_->config().architecture,
            .weight_bytes = backend_->weight_bytes()};
  }

 private:
  void load() {
    const auto start = Clock::now();
    log(Level::kInfo, "model_load_start", {{"path", config_.model}});
    checkpoint_.emplace(open_model(config_.model));
    const std::string folder = checkpoint_->directory() + "/";
    // First of all, so that a family we have not got is what the error names.
    parse_model_config(checkpoint_->config(), checkpoint_->generation_config(),
                       checkpoint_->config_file());
    tokenizer_.emplace(load_tokenizer(*checkpoint_));
    // What lies beside a GGUF file is no part of it.
    chat_.emplace(ChatTemplates::load(checkpoint_->tokenizer_config(), checkpoint_->chat_template(),
                                      checkpoint_->gguf() ? "" : checkpoint_->directory()));
    LoadProgress progress;
    model_.emplace(Model::load(*checkpoint_, *backend_,
                               {.dtype = dtype_named(config_.dtype),
                                .quantize = dtype_named(config_.quantize),
                                .progress = [&](int percent) { progress(percent); }}));
    engine_.emplace(*backend_, *model_, *tokenizer_, engine_options(folder));
    log(Level::kInfo, "model_load_complete",
        {{"architecture", model_->config().architecture},
         {"dtype", name(model_->dtype())},
         {"kv_dtype", name(kv_type())},
         {"weight_bytes", backend_->weight_bytes()},
         {"kv_bytes", engine_->kv_bytes()},
         {"ms", ms_since(start)}});
  }

  // The parity gate.
  void verify() {
    if (config_.verify_against_cpu == 0) return;
    const auto start = Clock::now();
    const ParityReport report = check_parity(*backend_, *model_, *checkpoint_,
                                             {.layers = config_.verify_against_cpu,
                                              .kv_type = kv_type(),
                                              .block_tokens = engine_->block_tokens(),
                                              .logit_rows = config_.max_batch});
    log(Level::kInfo, "parity_checked",
        {{"layers", report.layers},
         {"checks", report.checks},
         {"worst", report.worst},
         {"worst_at", report.worst_at},
         {"step", report.step},
         {"ms", ms_since(start)}});
  }

  DType kv_type() const {
    const DType otherwise = model_->dtype() == DType::kF32 ? DType::kF32 : DType::kBF16;
    return dtype_named(config_.kv_dtype).value_or(otherwise);
  }

  EngineOptions engine_options(const std::string& folder) const {
    const int model_context = model_->config().context;
    const int context = config_.context_length.value_or(std::min(model_context, kDefaultContext));
    if (context > model_context) {
      throw Error(ErrorCode::kBadArgument, "--context-length " + std::to_string(context) +
                                               ": the model's is " + std::to_string(model_context));
    }
    EngineOptions options{.context = context,
                          .max_batch = config_.max_batch,
                          .max_queue = config_.max_queue,
                          .speculate = config_.speculate,
                          .kv_type = kv_type(),
                          .kv_bytes = config_.kv_memory_bytes,
                          .stall_timeout = config_.stall_timeout,
                          .result_retention = config_.result_retention,
                          .resume_grace = config_.resume_grace};
    options.eos_ids = model_->config().eos_ids;
    if (const auto eos = eos_token_id(checkpoint_->tokenizer_config(), *tokenizer_,
                                      folder + "tokenizer_config.json")) {
      options.eos_ids.push_back(*eos);
    }
    return options;
  }

  const Config& config_;
  std::optional<Backend> backend_;
  std::optional<Checkpoint> checkpoint_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplates> chat_;
  std::optional<Model> model_;
  std::optional<Engine> engine_;
  std::optional<StallGuard> stall_guard_;
};

std::string uri(const Config& config, uint16_t port) {
  const bool v6 = config.advertise_host.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + config.advertise_host + "]" : config.advertise_host) + ":" +
         std::to_string(port);
}

void announce(const Config& config, const Service& service, uint16_t port, Lifecycle& lifecycle) {
  const ReadyMessage message{.worker_id = config.worker_id,
                             .vram_bytes = service.weight_bytes,
                             .uri = uri(config, port),
                             .model_ref = config.model_name,
                             .backend = kBackendInfo.name,
                             .memory_bytes = service.weight_bytes + service.engine->kv_bytes(),
                             .capabilities = {"execute", "stream", "cancel"}};
  if (send_ready(config.callback_url, message, {}, lifecycle.stop_token())) {
    log(Level::kInfo, "callback_sent", {{"url", config.callback_url}});
  }
  log(Level::kInfo, "ready", {{"port", port}, {"uri", message.uri}});
}

// Running requests finish, or end with CANCELLED at the timeout or a second signal. False if a step
// still runs then, whose end nobody can wait for.
bool drain(const Config& config, Server& server, Engine& engine, const Lifecycle& lifecycle) {
  server.start_drain();
  engine.start_drain();
  log(Level::kInfo, "shutdown", {{"running", engine.snapshot().running}});
  const auto end = Clock::now() + config.shutdown_timeout;
  while (Clock::now() < end && !lifecycle.stop_asked_twice() &&
         !engine.wait_drained(std::min(end, Clock::now() + kSignalCheck))) {
  }
  engine.stop();
  // Streams that are left get their CANCELLED when the step that runs has ended.
  if (engine.wait_drained(Clock::now() + kLastStep)) return true;
  engine.end_streams(CancelCause::kShutdown);
  return false;
}

bool beyond_loopback(const std::string& host) {
  return host != "localhost" && host != "::1" && host.rfind("127.", 0) != 0;
}

void log_startup(const Config& config) {
  if (kBackendInfo.device_flag == nullptr) {
    log(Level::kInfo, "startup",
        {{"model", config.model_name}, {"port", config.port}, {"backend", kBackendInfo.name}});
    return;
  }
  const std::string device = std::string(kBackendInfo.name) + "_device";
  log(Level::kInfo, "startup",
      {{"model", config.model_name},
       {"port", config.port},
       {"backend", kBackendInfo.name},
       {device, config.device_index}});
}

// The thread that owns device, model and engine. They stay alive until this object is destroyed, so
// that server and main thread may use them after the engine has ended.
class EngineThread {
 public:
  EngineThread(const Config& config, Lifecycle& lifecycle)
      : thread_([this, &config, &lifecycle] {
          os::name_this_thread("engine");
          std::optional<Worker> worker;
          try {
            worker.emplace(config);
            lifecycle.set_ready(worker->service());
            worker->engine().run();
          } catch (...) {
            lifecycle.set_failed(std::current_exception());
          }
          released_.wait();
        }) {}
  ~EngineThread() {
    released_.count_down();
    thread_.join();
  }

 private:
  std::latch released_{1};
  std::thread thread_;
};

std::string describe(std::exception_ptr failure) try {
  std::rethrow_exception(failure);
} catch (const std::exception& error) {
  return error.what();
}

// From a model in memory to the exit status.
int serve(const Config& config, const Service& service, Server& server, Lifecycle& lifecycle) {
  int status = 0;
  server.on_shutdown([&] { lifecycle.ask_to_stop(); });
  server.serve(service);
  try {
    announce(config, service, server.port(), lifecycle);
    lifecycle.wait_stop(*service.engine);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCallbackRefused) {
      status = exit_status(error.code());
      log(Level::kError, "error",
          {{"code", name(error.code())}, {"message", error.what()}, {"exit_code", status}});
    }
  } catch (...) {
    // The engine's failure, read below.
  }
  const bool drained = lifecycle.failure() || drain(config, server, *service.engine, lifecycle);
  if (const std::exception_ptr failure = lifecycle.failure()) {
    status = kExitEngineFailed;
    log(Level::kError, "error",
        {{"code", "engine_failed"}, {"message", describe(failure)}, {"exit_code", status}});
  }
  server.stop();
  if (service.engine->snapshot().stalled) status = kExitEngineFailed;
  if (!drained) exit_now(status);
  lifecycle.forget_service();
  return status;
}

// From parsed flags to the exit status. A failed start is thrown.
int run(const Config& config) {
  Lifecycle lifecycle;
  const os::StopSignals signals([&](int) { lifecycle.ask_to_stop(); });
  if (!config.callback_url.empty()) parse_callback_url(config.callback_url);
  log_startup(config);
  Server server({.host = config.host,
                 .port = config.port,
                 .threads = os::usable_cpus() >= 4 ? 2 : 1,
                 .model_name = config.model_name,
                 .backend = kBackendInfo.name,
                 .request_timeout = config.request_timeout,
                 .seed_default = config.seed_default});
  log(Level::kInfo, "listening", {{"host", config.host}, {"port", server.port()}});
  if (beyond_loopback(config.host)) {
    log(Level::kWarn, "open_to_the_network",
        {{"host", config.host}, {"reason", "no API key protects this address"}});
  }
  EngineThread engine_thread(config, lifecycle);
  const std::optional<Service> service = lifecycle.wait_ready();
  if (!service) {
    // Nothing has been promised to anybody yet, and a load may take long to come to an end.
    log(Level::kInfo, "shutdown", {{"running", 0}});
    exit_now(0);
  }
  return serve(config, *service, server, lifecycle);
}

int main_or_throw(int argc, char** argv) {
  start_logging(new_uuid(), true, Level::kInfo);
  const Program program{"llorch-" + std::string(kBackendInfo.name) + "-candled", LLORCH_VERSION,
                        kBackendInfo.device_flag, kBackendInfo.f8, kBackendInfo.computes};
  const CommandLine command = parse_command_line(argc, argv, program);
  if (!command.text.empty()) {
    std::fputs(command.text.c_str(), stdout);
    return 0;
  }
  const Config& config = command.config;
  start_logging(config.worker_id, config.log_json, config.log_level);
  return run(config);
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  using namespace llorch;
  os::prepare_process();
  set_memory_aside(kMemoryReserve);
  try {
    return main_or_throw(argc, argv);
  } catch (const OutOfMemory& error) {
    return fail(name(error.code()), error.what(), exit_status(error.code()), &error);
  } catch (const Error& error) {
    return fail(name(error.code()), error.what(), exit_status(error.code()));
  } catch (const std::bad_alloc&) {
    const OutOfMemory error("start", 0, os::free_memory_bytes());
    return fail(name(error.code()), "an allocation failed", exit_status(error.code()), &error);
  } catch (const std::exception& error) {
    return fail("internal", error.what(), 1);
  }
}
