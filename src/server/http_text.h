// The HTTP texts that need no parser: heads of answers, chunks, and what headers mean here. Knows
// no sockets and no routes.
#pragma once

#include <string>
#include <string_view>

#include "server/errors.h"

namespace llorch {

// How a connection's answers are framed.
struct Framing {
  bool http_1_1 = true;  // else 1.0: no chunks
  bool keep_alive = true;
  bool head_only = false;  // HEAD
};

// The whole answer, ready to be sent.
std::string answer(const Reply& reply, const std::string& correlation_id, const Framing& framing);
// The head of an event stream: chunked for HTTP/1.1, ended by the connection's end for 1.0.
std::string stream_head(const std::string& correlation_id, const Framing& framing);
std::string chunk_head(size_t bytes);
inline constexpr std::string_view kChunkEnd = "\r\n", kLastChunkEnd = "\r\n0\r\n\r\n",
                                  kLastChunk = "0\r\n\r\n";
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

// The request's own id if it is a UUID in the 8-4-4-4-12 form, else a fresh one.
std::string correlation_id(std::string_view header);
// True for application/json in any case, with any parameters.
bool is_json_media_type(std::string_view content_type);
// The path of a request target in origin or absolute form, without the query; "" if it is neither.
std::string_view path_of(std::string_view target);

// %41 is A; what is no such escape stays as it is.
std::string percent_decoded(std::string_view text);

}  // namespace llorch
