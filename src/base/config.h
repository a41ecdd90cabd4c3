// The worker's settings: flags over environment over file over defaults (contract, section 2).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"

namespace llorch {

struct Config {
  std::string model;
  std::string worker_id;  // a fresh UUID unless given
  uint16_t port = 8080;   // 0: a free one
  std::string callback_url;
  int device_index = 0;
  std::string host = "0.0.0.0";
  std::string advertise_host = "localhost";
  std::string model_name;
  std::string dtype = "auto";     // auto, f32, bf16, f16
  std::string quantize = "none";  // none, q8_0, q6_k, q5_k, q4_k, q4_0, iq4_nl, f8_e4m3
  std::string kv_dtype = "auto";  // auto, f32, bf16, f16, q8_0, f8_e4m3
  std::optional<int> context_length;
  int max_batch = 32;
  int max_queue = 256;
  std::optional<uint64_t> kv_memory_bytes;  // none: auto
  std::optional<int> threads;               // none: auto
  bool speculate = true;
  int verify_against_cpu = 0;  // layers compared at start; Program says what it is unless given
  std::chrono::milliseconds request_timeout{0};
  std::chrono::milliseconds shutdown_timeout{30'000};
  std::chrono::milliseconds stall_timeout{60'000};
  std::chrono::milliseconds result_retention{300'000};
  std::chrono::milliseconds resume_grace{60'000};
  std::optional<uint64_t> seed_default;
  bool log_json = true;
  Level log_level = Level::kInfo;
};

struct CommandLine {
  Config config;
  std::string text;  // what --help or --version asks to print; then exit 0
};

// What the binary is: "llorch-cpu-candled", its version, and its own device flag ("cuda-device") or
// null.
struct Program {
  std::string name, version;
  const char* device_flag = nullptr;
  bool f8 = false;  // has f8_e4m3, which no other binary takes
  bool computes = true;
};

// Reads argv, LLORCH_* and the --config file. Throws Error{kBadArgument} that names the flag; flags
// whose feature is not there yet are refused by name.
CommandLine parse_command_line(int argc, const char* const* argv, const Program& program);

// Random (version 4) UUID in the 8-4-4-4-12 form.
std::string new_uuid();
bool is_uuid(std::string_view text);

}  // namespace llorch
