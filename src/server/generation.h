// From the body of a request that generates to what the engine is asked and how its events are
// told: one function for each path. Knows no sockets and submits nothing.
#pragma once

#include <chrono>
#include <memory>
#include <string_view>
#include <variant>

#include "server/errors.h"
#include "server/event_writer.h"
#include "server/execution.h"
#include "server/server.h"

namespace llorch {

struct Generation {
  Request request;  // but for the correlation id
  std::unique_ptr<EventWriter> writer;
  Execution::Options reading;
};

// The refusals are in the form of the path. What tokenizer or template throw for this body alone is
// Error{kBadRequest} or Error{kUnsupported}.
std::variant<Generation, Reply> execute_generation(const Service& service,
                                                   const ServerOptions& options,
                                                   std::string_view body);
std::variant<Generation, Reply> openai_generation(const Service& service,
                                                  const ServerOptions& options,
                                                  std::string_view body, bool chat);

// 404 for a model that is not the one served.
Reply no_such_model(const std::string& name);

}  // namespace llorch
