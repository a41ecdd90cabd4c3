#include "server/api.h"

#include <algorithm>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "server/execute_request.h"
#include "server/http_text.h"
#include "server/json_text.h"

namespace llorch {
namespace {

enum class Route { kNone, kExecute, kHealth, kLive, kReady, kCancel, kShutdown };
struct RouteRow {
  std::string_view path;
  Route route;
  bool post;  // else GET and HEAD
};
constexpr RouteRow kRoutes[] = {
    {"/execute", Route::kExecute, true}, {"/health", Route::kHealth, false},
    {"/livez", Route::kLive, false},     {"/readyz", Route::kReady, false},
    {"/cancel", Route::kCancel, true},   {"/shutdown", Route::kShutdown, true},
};
constexpr RouteRow kNoRoute{"", Route::kNone, false};

const RouteRow& find_route(std::string_view path) {
  for (const RouteRow& row : kRoutes) {
    if (row.path == path) return row;
  }
  return kNoRoute;
}

std::string allowed(const RouteRow& row) {
  return row.post ? "OPTIONS, POST" : "GET, HEAD, OPTIONS";
}

bool allows(const RouteRow& row, std::string_view method) {
  if (method == "OPTIONS") return true;
  return row.post ? method == "POST" : method == "GET" || method == "HEAD";
}

Reply json_reply(int status, std::string body) {
  Reply reply;
  reply.status = status;
  reply.body = std::move(body);
  return reply;
}

uint64_t random_seed() {
  // Below 2^53: exact in every JSON reader.
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator() >> 11;
}

Sampling sampling_of(const ExecuteRequest& r, uint64_t seed) {
  Sampling s;
  s.temperature = r.temperature;
  s.top_p = r.top_p;
  s.min_p = r.min_p;
  s.repetition_penalty = r.repetition_penalty;
  constexpr uint32_t kMaxTopK = std::numeric_limits<int32_t>::max();
  s.top_k = static_cast<int32_t>(std::min(r.top_k, kMaxTopK));
  s.seed = seed;
  s.top_logprobs = r.logprobs ? static_cast<int32_t>(*r.logprobs) : -1;
  return s;
}

Reply refusal_of(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kBadRequest:
      return refuse(Refusal::kInvalidField, error.what());
    case ErrorCode::kOverloaded:
      return refuse(Refusal::kOverloaded, error.what());
    case ErrorCode::kConflict:
      return refuse(Refusal::kJobConflict, error.what());
    case ErrorCode::kUnavailable:
      return refuse(Refusal::kUnavailable, error.what());
    default:
      return refuse(Refusal::kInternal, error.what());
  }
}

}  // namespace

void Api::serve(const Service& service) {
  CHECK(service_.load() == nullptr);
  stored_service_ = service;
  service_.store(&stored_service_, std::memory_order_release);
}

std::optional<Reply> Api::check(const RequestHead& head) const {
  const RouteRow& row = find_route(head.path);
  const bool loading = service() == nullptr;
  if (loading && row.route != Route::kLive && row.route != Route::kHealth) {
    return refuse(Refusal::kLoading, "the model is being loaded");
  }
  if (row.route == Route::kNone) {
    // OPTIONS * asks about the server as a whole.
    if (head.method == "OPTIONS" && head.path.empty()) {
      Reply reply = json_reply(204, "");
      reply.allow = "GET, HEAD, OPTIONS, POST";
      return reply;
    }
    return refuse(Refusal::kNotFound, "there is no such path");
  }
  if (!allows(row, head.method)) {
    Reply reply = refuse(Refusal::kMethodNotAllowed,
                         std::string(row.path) + " takes " + (row.post ? "POST" : "GET"));
    reply.allow = allowed(row);
    return reply;
  }
  if (head.method == "OPTIONS") {
    Reply reply = json_reply(204, "");
    reply.allow = allowed(row);
    return reply;
  }
  if (row.route != Route::kExecute && row.route != Route::kCancel) return std::nullopt;
  if (!is_json_media_type(head.content_type)) {
    return refuse(Refusal::kUnsupportedMediaType, "the content type must be application/json");
  }
  if (!head.content_encoding.empty() && head.content_encoding != "identity") {
    return refuse(Refusal::kUnsupportedMediaType, "the body must not be encoded");
  }
  if (row.route == Route::kCancel) return std::nullopt;
  if (draining_) return refuse(Refusal::kUnavailable, "the worker is shutting down");
  if (!head.unsupported_header.empty()) {
    return refuse(Refusal::kInvalidField,
                  "header `" + std::string(head.unsupported_header) + "` is not supported yet");
  }
  return std::nullopt;
}

Api::Outcome Api::handle(const RequestHead& head, std::string_view body,
                         std::function<void()> wake) {
  switch (find_route(head.path).route) {
    case Route::kExecute:
      return execute(head, body, std::move(wake));
    case Route::kHealth:
      return health();
    case Route::kLive:
      return live();
    case Route::kReady:
      return ready();
    case Route::kCancel:
      return cancel(body);
    case Route::kShutdown:
      return shut_down(head);
    case Route::kNone:
      break;
  }
  return refuse(Refusal::kNotFound, "there is no such path");
}

Api::Outcome Api::execute(const RequestHead& head, std::string_view body,
                          std::function<void()> wake) const {
  auto parsed = parse_execute(body);
  if (auto* reply = std::get_if<Reply>(&parsed)) return std::move(*reply);
  ExecuteRequest& wanted = std::get<ExecuteRequest>(parsed);
  const Service& s = *service();
  Request request;
  request.prompt = s.tokenizer->encode(wanted.prompt);
  if (auto reply = check_length(request.prompt.size(), wanted.max_tokens, s.engine->context())) {
    return std::move(*reply);
  }
  const uint64_t seed = wanted.seed             ? *wanted.seed
                        : options_.seed_default ? *options_.seed_default
                                                : random_seed();
  StreamFacts facts{wanted.job_id, options_.model_name, seed, s.weight_bytes};
  request.job_id = std::move(wanted.job_id);
  request.correlation_id = head.correlation_id;
  request.max_tokens = static_cast<int32_t>(wanted.max_tokens);
  request.sampling = sampling_of(wanted, seed);
  request.stop = std::move(wanted.stop);
  request.ignore_eos = wanted.ignore_eos;
  request.timeout = options_.request_timeout;
  try {
    auto stream = s.engine->submit(request, std::move(wake));
    return std::make_shared<Execution>(std::move(stream), request, std::move(facts),
                                       wanted.keepalive);
  } catch (const Error& error) {
    return refusal_of(error);
  }
}

// Null if all is well.
const char* Api::why_unhealthy(const EngineSnapshot& snapshot) const {
  if (!service()) return "loading";
  if (snapshot.failed) return "failed";
  if (snapshot.stalled) return "stalled";
  return draining_ ? "draining" : nullptr;
}

Reply Api::health() const {
  const Service* const s = service();
  const EngineSnapshot now = s ? s->engine->snapshot() : EngineSnapshot();
  const char* const reason = why_unhealthy(now);
  const auto uptime =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - born_);
  const float usage = now.blocks_total == 0 ? 0.0F
                                            : static_cast<float>(now.blocks_used) /
                                                  static_cast<float>(now.blocks_total);
  std::string body = std::string("{\"status\":\"") + (reason ? "unhealthy" : "healthy") +
                     "\",\"vram_bytes\":" + std::to_string(s ? s->weight_bytes : 0) +
                     ",\"model\":" + json_string(options_.model_name) +
                     ",\"architecture\":" + json_string(s ? s->architecture : "") +
                     ",\"backend\":" + json_string(options_.backend) +
                     ",\"context_length\":" + std::to_string(s ? s->engine->context() : 0) +
                     ",\"uptime_seconds\":" + std::to_string(uptime.count()) +
                     ",\"running\":" + std::to_string(now.running) +
                     ",\"waiting\":" + std::to_string(now.waiting) +
                     ",\"kv_usage\":" + json_number(usage);
  if (reason) body += std::string(",\"reason\":\"") + reason + "\"";
  return json_reply(reason ? 503 : 200, body + "}");
}

Reply Api::live() const {
  const Service* const s = service();
  const EngineSnapshot now = s ? s->engine->snapshot() : EngineSnapshot();
  if (now.stalled || now.failed) {
    return refuse(Refusal::kUnavailable, now.failed ? "the engine failed" : "the engine stalled");
  }
  return json_reply(200, R"({"status":"alive"})");
}

Reply Api::ready() const {
  const char* const reason = why_unhealthy(service()->engine->snapshot());
  if (reason) return refuse(Refusal::kUnavailable, std::string("the worker is ") + reason);
  return json_reply(200, R"({"status":"ready"})");
}

Reply Api::cancel(std::string_view body) const {
  auto parsed = parse_cancel(body);
  if (auto* reply = std::get_if<Reply>(&parsed)) return std::move(*reply);
  const auto& job_id = std::get<std::string>(parsed);
  if (!service()->engine->cancel(job_id)) {
    return refuse(Refusal::kNotFound, "there is no such job");
  }
  return json_reply(202, "{\"job_id\":" + json_string(job_id) + "}");
}

Reply Api::shut_down(const RequestHead& head) {
  if (!head.loopback_peer) {
    return refuse(Refusal::kForbidden, "only this machine may shut the worker down");
  }
  log(Level::kInfo, "shutdown_requested", {{"correlation_id", head.correlation_id}});
  // Before the answer: who has read it finds new work refused.
  start_drain();
  if (!shutdown_asked_.exchange(true) && shutdown_) shutdown_();
  return json_reply(202, R"({"status":"draining"})");
}

}  // namespace llorch
