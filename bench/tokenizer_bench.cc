// How fast a tokenizer loads and encodes, on one core.
//
//   tokenizer_bench TEXT TOKENIZER...     (a TOKENIZER is a tokenizer.json)
//
// Prints for each: milliseconds to load, MB/s for the whole text at once, MB/s for prompts of 4 kB,
// and for a megabyte of each adversarial kind. Processor time, the best of some runs. The probe is
// a plain walk over the text's bytes, to compare machines by.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// The best processor time of `runs` calls.
template <typename Run>
double seconds(int runs, const Run& run) {
  double best = std::numeric_limits<double>::max();
  for (int i = 0; i < runs; ++i) {
    const double start = now();
    run();
    best = std::min(best, now() - start);
  }
  return best;
}

double rate(size_t bytes, double time) { return static_cast<double>(bytes) / 1e6 / time; }

volatile size_t sink;

void probe(std::string_view text) {
  size_t sum = 0;
  for (const char c : text) sum = sum * 31 + static_cast<unsigned char>(c);
  sink = sum;
}

std::string repeated(std::string_view unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

void measure(const char* path, std::string_view text) {
  const std::string json = read_file(path);
  const double load = seconds(
      3, [&] { sink = static_cast<size_t>(Tokenizer::from_json(json, path).vocab_size()); });
  const Tokenizer tokenizer = Tokenizer::from_json(json, path);
  const double whole = seconds(3, [&] { sink = tokenizer.encode(text).size(); });
  const double prompts = seconds(3, [&] {
    constexpr size_t kPrompt = 4000;
    for (size_t at = 0; at < text.size(); at += kPrompt) {
      sink = tokenizer.encode(text.substr(at, kPrompt)).size();
    }
  });
  std::printf("%-40s load %4.0f ms; whole %5.1f MB/s; 4 kB %5.1f MB/s; 1 MB of", path, load * 1e3,
              rate(text.size(), whole), rate(text.size(), prompts));
  for (const char* unit : {"a", " ", "ab", "\n", "1", "\xF0\x9F\x99\x82", "\xCC\x81", "a b"}) {
    const std::string long_text = repeated(unit, 1'000'000);
    const double time = seconds(1, [&] { sink = tokenizer.encode(long_text).size(); });
    std::printf(" %.2f", time);
    std::fflush(stdout);
  }
  std::printf(" s\n");
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TEXT TOKENIZER...\n");
    return 2;
  }
  try {
    const std::string text = llorch::read_file(argv[1]);
    std::printf("probe %.0f MB/s\n",
                llorch::rate(text.size(), llorch::seconds(5, [&] { llorch::probe(text); })));
    for (int i = 2; i < argc; ++i) llorch::measure(argv[i], text);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
