#include "tokenizer/regex.h"

#include <chrono>
#include <cstdint>
#include <optional>

#include <pcre2.h>

#include "base/error.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;  // of one attempt, as Oniguruma has it
// Repeating anything but a plain class takes room for each repetition. Only what is used is taken.
constexpr size_t kJitStackBytes = 256 * 1024 * 1024;
constexpr uint32_t kHeapLimitKib = 256 * 1024;  // without JIT
// A search that finds nothing in this many places looks at the clock before it goes on: scanning
// from each of n places can take n * n steps, which the match limit does not count.
constexpr size_t kPlacesPerCall = 64;
constexpr std::chrono::seconds kTimeLimit{10};

// What a match writes to; one per thread.
struct Workspace {
  Workspace()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr)) {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Workspace() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

[[noreturn]] void throw_too_complex(const char* what) {
  throw Error(ErrorCode::kBadRequest,
              std::string("[tokenizer] the text takes the tokenizer's pattern too much ") + what);
}

std::string compile_message(int code) {
  PCRE2_UCHAR text[160];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Pattern::Code {
  Code(pcre2_code* compiled, bool can_skip) : code(compiled), skips(can_skip) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  // The first match at or after `from`.
  std::optional<Stretch> search(std::string_view text, size_t from) const;

  pcre2_code* code;
  bool skips;  // passes over what it has scanned in vain, so that it needs no clock
};

std::optional<Stretch> Pattern::Code::search(std::string_view text, size_t from) const {
  thread_local Workspace workspace;
  std::optional<std::chrono::steady_clock::time_point> started;
  while (true) {
    size_t last = skips ? text.size() : std::min(text.size(), from + kPlacesPerCall);
    while (last < text.size() && (text[last] & 0xC0) == 0x80) ++last;
    pcre2_set_offset_limit(workspace.context, last);
    const int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                               PCRE2_NO_UTF_CHECK, workspace.data, workspace.context);
    if (rc >= 0) {
      const PCRE2_SIZE* found = pcre2_get_ovector_pointer(workspace.data);
      return Stretch{found[0], found[1], true};
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT || rc == PCRE2_ERROR_HEAPLIMIT) throw_too_complex("stack");
    if (rc != PCRE2_ERROR_NOMATCH) throw_too_complex("work");
    if (last == text.size()) return std::nullopt;
    const auto now = std::chrono::steady_clock::now();
    if (!started) started = now;
    if (now - *started > kTimeLimit) throw_too_complex("time");
    from = last;
  }
}

Pattern Pattern::regex(std::string_view oniguruma) {
  const std::string translated = oniguruma_to_pcre2(oniguruma);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* compiled = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C,
      &error, &at, context);
  pcre2_compile_context_free(context);
  if (compiled == nullptr) throw UntranslatablePattern(compile_message(error));
  Pattern pattern;
  pattern.code_ =
      std::make_shared<const Code>(compiled, translated.find(kSkip) != std::string::npos);
  // Where there is no JIT the interpreter matches the same.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  return pattern;
}

Pattern Pattern::literal(std::string text) {
  if (text.empty()) return regex("");
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

void Pattern::find_literal(std::string_view text, std::vector<Stretch>& out) const {
  size_t done = 0;
  for (size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, done)) {
    if (at != done) out.push_back({done, at, false});
    done = at + literal_.size();
    out.push_back({at, done, true});
  }
  if (done != text.size()) out.push_back({done, text.size(), false});
}

void Pattern::find(std::string_view text, std::vector<Stretch>& out) const {
  out.clear();
  if (text.empty()) {
    out.push_back({0, 0, false});
    return;
  }
  if (code_ == nullptr) {
    find_literal(text, out);
    return;
  }
  size_t done = 0, from = 0;
  bool any = false;
  while (from <= text.size()) {
    const std::optional<Stretch> match = code_->search(text, from);
    if (!match) break;
    if (match->begin == match->end && any && match->end == done) {
      // An empty match right behind the last match does not count.
      from += from < text.size() ? char_bytes(text, from) : 1;
      continue;
    }
    if (match->begin != done) out.push_back({done, match->begin, false});
    out.push_back(*match);
    any = true;
    done = from = match->end;
  }
  if (done != text.size()) out.push_back({done, text.size(), false});
}

}  // namespace llorch::tok
