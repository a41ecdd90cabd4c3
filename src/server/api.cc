#include "server/api.h"

#include <algorithm>

#include <charconv>

#include "base/error.h"
#include "base/log.h"
#include "base/memory_reserve.h"
#include "base/os.h"
#include "server/deadline.h"
#include "server/execute_request.h"
#include "server/generation.h"
#include "server/http_text.h"
#include "server/job_log.h"
#include "server/json_text.h"
#include "server/metrics_text.h"
#include "server/openai_error.h"
#include "server/openai_writer.h"
#include "server/text_tools.h"

namespace llorch {
namespace {

enum class Route {
  kNone,
  kExecute,
  kHealth,
  kLive,
  kReady,
  kMetrics,
  kCancel,
  kShutdown,
  kTokenize,
  kDetokenize,
  kApplyTemplate,
  kModels,
  kModel,
  kCompletions,
  kChat,
};
struct RouteRow {
  std::string_view path;  // ends with '/' if a name follows
  Route route;
  bool post;          // else GET and HEAD
  bool json = false;  // takes a body
  bool generates = false;
  bool tool = false;
};
constexpr RouteRow kRoutes[] = {
    {"/execute", Route::kExecute, true, true, true},
    {"/health", Route::kHealth, false},
    {"/livez", Route::kLive, false},
    {"/readyz", Route::kReady, false},
    {"/metrics", Route::kMetrics, false},
    {"/cancel", Route::kCancel, true, true},
    {"/shutdown", Route::kShutdown, true},
    {"/tokenize", Route::kTokenize, true, true, false, true},
    {"/detokenize", Route::kDetokenize, true, true, false, true},
    {"/apply-template", Route::kApplyTemplate, true, true, false, true},
    {"/v1/models", Route::kModels, false},
    {"/v1/models/", Route::kModel, false},
    {"/v1/completions", Route::kCompletions, true, true, true},
    {"/v1/chat/completions", Route::kChat, true, true, true},
};
constexpr RouteRow kNoRoute{"", Route::kNone, false};

const RouteRow& find_route(std::string_view path) {
  for (const RouteRow& row : kRoutes) {
    const bool with_name = row.path.ends_with('/') && path.size() > row.path.size();
    if (row.path == (with_name ? path.substr(0, row.path.size()) : path)) return row;
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

std::optional<uint64_t> event_number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Retry-After is about when there will be a place: from a second to a minute.
Reply overloaded(const Error& error) {
  Reply reply = refuse(Refusal::kOverloaded, error.what());
  if (const auto* known = dynamic_cast<const Overloaded*>(&error)) {
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(known->retry_after()).count();
    reply.retry_after_s = static_cast<int>(std::clamp<int64_t>(seconds, 1, 60));
  }
  return reply;
}

// The earlier of the two headers' moments, which check() has found well formed.
std::optional<std::chrono::steady_clock::time_point> deadline_of(const RequestHead& head) {
  using std::chrono::steady_clock;
  std::optional<steady_clock::time_point> earliest;
  const auto take = [&](Deadline::Milliseconds from_arrival) {
    const auto moment = head.arrived + from_arrival.value();
    earliest = earliest ? std::min(*earliest, moment) : moment;
  };
  if (head.deadline_ms) take(Deadline::in(*head.deadline_ms));
  if (head.deadline) {
    const auto since = steady_clock::now() - head.arrived;
    const auto then = std::chrono::system_clock::now() -
                      std::chrono::duration_cast<std::chrono::system_clock::duration>(since);
    take(Deadline::at(*head.deadline, then));
  }
  return earliest;
}

Reply refusal_of(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kBadRequest:
    case ErrorCode::kUnsupported:
      return refuse(Refusal::kInvalidField, error.what());
    case ErrorCode::kOverloaded:
      return overloaded(error);
    case ErrorCode::kConflict:
      return refuse(Refusal::kJobConflict, error.what());
    case ErrorCode::kNotFound:
      return refuse(Refusal::kNotFound, error.what());
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

void Api::start_drain() {
  draining_ = true;
  if (const Service* const s = service()) s->engine->start_drain();
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
  if (!row.json) return std::nullopt;
  if (!is_json_media_type(head.content_type)) {
    return refuse(Refusal::kUnsupportedMediaType, "the content type must be application/json");
  }
  if (!head.content_encoding.empty() && head.content_encoding != "identity") {
    return refuse(Refusal::kUnsupportedMediaType, "the body must not be encoded");
  }
  if (!row.generates) return std::nullopt;
  if (!refill_memory_reserve()) return out_of_memory();
  // A repeat of what runs is served to the end: the engine refuses the others.
  if (draining_ && row.route != Route::kExecute) {
    return refuse(Refusal::kUnavailable, "the worker is shutting down");
  }
  if (head.last_event_id && row.route != Route::kExecute) {
    return refuse(Refusal::kInvalidField, "header `Last-Event-ID` belongs to /execute");
  }
  if (head.last_event_id && !event_number(*head.last_event_id)) {
    return refuse(Refusal::kInvalidField, "header `Last-Event-ID` must be the number of an event");
  }
  if (head.deadline && !parse_rfc3339(*head.deadline)) {
    return refuse(Refusal::kInvalidField, "header `X-Deadline` must be an RFC 3339 date and time");
  }
  if (head.deadline_ms && !Deadline::in(*head.deadline_ms)) {
    return refuse(Refusal::kInvalidField, "header `X-Deadline-Ms` must be whole milliseconds");
  }
  return std::nullopt;
}

size_t max_body_bytes(std::string_view path) {
  const RouteRow& row = find_route(path);
  return is_openai_path(path) || row.tool ? size_t{16} << 20 : size_t{2} << 20;
}

bool is_heavy(std::string_view path, size_t body_bytes) {
  constexpr size_t kLongBytes = 32 * 1024;
  const Route route = find_route(path).route;
  return body_bytes >= kLongBytes || route == Route::kChat || route == Route::kApplyTemplate;
}

Api::Outcome Api::handle(const RequestHead& head, std::string_view body,
                         std::function<void()> wake) try {
  const Service* const s = service();
  switch (find_route(head.path).route) {
    case Route::kExecute:
      return submit(head, execute_generation(*s, options_, body), std::move(wake));
    case Route::kCompletions:
      return submit(head, openai_generation(*s, options_, body, false), std::move(wake));
    case Route::kChat:
      return submit(head, openai_generation(*s, options_, body, true), std::move(wake));
    case Route::kHealth:
      return health();
    case Route::kLive:
      return live();
    case Route::kReady:
      return ready();
    case Route::kMetrics:
      return metrics();
    case Route::kCancel:
      return cancel(body);
    case Route::kShutdown:
      return shut_down(head);
    case Route::kTokenize:
      return tokenize(*s->tokenizer, body);
    case Route::kDetokenize:
      return detokenize(*s->tokenizer, body);
    case Route::kApplyTemplate:
      return apply_template(*s->chat, body);
    case Route::kModels:
      return json_reply(200, model_list_json(options_.model_name, created_));
    case Route::kModel:
      return model(head.path);
    case Route::kNone:
      break;
  }
  return refuse(Refusal::kNotFound, "there is no such path");
} catch (const BadJson& bad) {
  return refuse(bad);
} catch (const BadField& bad) {
  return refuse(bad);
} catch (const Error& error) {
  return refusal_of(error);
}

void Api::note(std::string_view path, const Reply& reply) {
  const bool refused = reply.refusal == Refusal::kOverloaded ||
                       reply.refusal == Refusal::kUnavailable || reply.refusal == Refusal::kLoading;
  if (refused && find_route(path).generates) refused_.add();
}

Api::Outcome Api::submit(const RequestHead& head, std::variant<Generation, Reply> wanted,
                         std::function<void()> wake) const {
  if (auto* reply = std::get_if<Reply>(&wanted)) return std::move(*reply);
  Generation& generation = std::get<Generation>(wanted);
  Request& request = generation.request;
  request.correlation_id = head.correlation_id;
  if (head.last_event_id) request.last_event_id = event_number(*head.last_event_id);
  request.deadline = deadline_of(head);
  const auto job_log = std::make_shared<JobLog>(request);
  request.on_end = [job_log](const JobSummary& job) { job_log->end(job); };
  auto reader = service()->engine->submit(request, std::move(wake));
  if (reader->first()) job_log->begin();
  return std::make_shared<Execution>(std::move(reader), request, std::move(generation.writer),
                                     generation.reading);
}

Reply Api::model(std::string_view path) const {
  const std::string id = percent_decoded(path.substr(std::string_view("/v1/models/").size()));
  if (id != options_.model_name) return no_such_model(id);
  return json_reply(200, model_json(id, created_));
}

// Null if all is well.
const char* Api::why_unhealthy(const EngineSnapshot& snapshot) const {
  if (!service()) return "loading";
  if (snapshot.failed) return "failed";
  if (snapshot.stalled) return "stalled";
  return draining_ ? "draining" : nullptr;
}

double Api::uptime_s() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - born_).count();
}

Reply Api::health() const {
  const Service* const s = service();
  const EngineSnapshot now = s ? s->engine->snapshot() : EngineSnapshot();
  const char* const reason = why_unhealthy(now);
  std::string body = std::string("{\"status\":\"") + (reason ? "unhealthy" : "healthy") +
                     "\",\"vram_bytes\":" + std::to_string(s ? s->weight_bytes : 0) +
                     ",\"model\":" + json_string(options_.model_name) +
                     ",\"architecture\":" + json_string(s ? s->architecture : "") +
                     ",\"backend\":" + json_string(options_.backend) +
                     ",\"context_length\":" + std::to_string(s ? s->engine->context() : 0) +
                     ",\"uptime_seconds\":" + std::to_string(static_cast<int64_t>(uptime_s())) +
                     ",\"running\":" + std::to_string(now.running) +
                     ",\"waiting\":" + std::to_string(now.waiting) +
                     ",\"kv_usage\":" + json_number(now.kv_usage);
  if (reason) body += std::string(",\"reason\":\"") + reason + "\"";
  return json_reply(reason ? 503 : 200, body + "}");
}

Reply Api::metrics() const {
  const Service* const s = service();
  Reply reply = json_reply(200, metrics_text(*s->engine, {.model_name = options_.model_name,
                                                          .refused = refused_.value(),
                                                          .connections = connections_,
                                                          .weight_bytes = s->weight_bytes,
                                                          .uptime_s = uptime_s(),
                                                          .resident_bytes = os::resident_bytes()}));
  reply.content_type = kMetricsContentType;
  return reply;
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
