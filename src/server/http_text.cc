#include "server/http_text.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/config.h"

namespace llorch {
namespace {

const char* reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "";
  }
}

// Header names are lower case, as HTTP/2 writes them: one spelling to search for.
void append_connection(std::string& head, const Framing& framing, bool keep_alive) {
  if (!keep_alive) {
    head += "connection: close\r\n";
  } else if (!framing.http_1_1) {
    head += "connection: keep-alive\r\n";
  }
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

}  // namespace

std::string answer(const Reply& reply, const std::string& correlation_id, const Framing& framing) {
  std::string out =
      "HTTP/1.1 " + std::to_string(reply.status) + " " + reason(reply.status) + "\r\n";
  if (reply.status != 204) {
    out += std::string("content-type: ") + reply.content_type +
           "\r\ncontent-length: " + std::to_string(reply.body.size()) + "\r\n";
  }
  if (!reply.allow.empty()) out += "allow: " + reply.allow + "\r\n";
  if (reply.retry_after_s > 0) {
    out += "retry-after: " + std::to_string(reply.retry_after_s) + "\r\n";
  }
  append_connection(out, framing, framing.keep_alive && !reply.close);
  out += "x-correlation-id: " + correlation_id + "\r\n\r\n";
  if (!framing.head_only) out += reply.body;
  return out;
}

std::string stream_head(const std::string& correlation_id, const Framing& framing) {
  std::string out =
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n";
  if (framing.http_1_1) out += "transfer-encoding: chunked\r\n";
  append_connection(out, framing, framing.http_1_1 && framing.keep_alive);
  return out + "x-correlation-id: " + correlation_id + "\r\n\r\n";
}

std::string chunk_head(size_t bytes) {
  std::array<char, 20> text;
  char* const end = std::to_chars(text.data(), text.data() + text.size(), bytes, 16).ptr;
  return std::string(text.data(), end) + "\r\n";
}

std::string correlation_id(std::string_view header) {
  header = trim(header);
  return is_uuid(header) ? std::string(header) : new_uuid();
}

bool is_json_media_type(std::string_view content_type) {
  return equal_ignoring_case(trim(content_type.substr(0, content_type.find(';'))),
                             "application/json");
}

std::string_view path_of(std::string_view target) {
  if (const size_t scheme = target.find("://");
      scheme != std::string_view::npos && scheme < target.find_first_of("/?#")) {
    target.remove_prefix(scheme + 3);
    target.remove_prefix(std::min(target.find('/'), target.size()));
    if (target.empty()) return "/";
  }
  if (!target.starts_with('/')) return {};
  return target.substr(0, target.find_first_of("?#"));
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* const hex = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(hex, hex + 2, value, 16).ptr == hex + 2) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace llorch
