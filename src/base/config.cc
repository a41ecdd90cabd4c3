#include "base/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorCode::kBadArgument, text); }

// Largest file that --config reads.
constexpr std::streamsize kMaxConfigBytes = 1 << 20;

std::string environment_name(std::string flag) {
  for (char& c : flag) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return "LLORCH_" + flag;
}

// A whole decimal number within [low, high]; anything else names the flag.
template <class T>
T number(const std::string& flag, const std::string& text, T low, T high) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    refuse("--" + flag + ": got '" + text + "', want a number from " + std::to_string(low) +
           " to " + std::to_string(high));
  }
  return value;
}

milliseconds seconds(const std::string& flag, const std::string& text, double least) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != 0 || !std::isfinite(value) || value < least || value > 1e7) {
    refuse("--" + flag + ": got '" + text + "', want seconds from " + std::to_string(least) +
           " to 10000000");
  }
  return milliseconds(static_cast<int64_t>(value * 1000));
}

std::string one_of(const std::string& flag, const std::string& text,
                   std::initializer_list<const char*> choices) {
  std::string list;
  for (const char* choice : choices) {
    if (text == choice) return text;
    list += (list.empty() ? "" : ", ") + std::string(choice);
  }
  refuse("--" + flag + ": got '" + text + "', want one of " + list);
}

std::string not_empty(const std::string& flag, const std::string& text) {
  if (text.empty()) refuse("--" + flag + ": must not be empty");
  return text;
}

constexpr const char* kF8 = "f8_e4m3";

struct Flag {
  std::string name, help;
  std::function<void(const std::string& text)> set;
};

std::vector<Flag> worker_flags(Config& c, const char* device_flag) {
  std::vector<Flag> flags;
  const auto add = [&](const char* name, const char* help, auto set) {
    flags.push_back({name, help, [name = std::string(name), set](const std::string& text) {
                       set(name, text);
                     }});
  };
  using S = const std::string&;
  add("model",
      "directory, one .safetensors file with its JSON files beside it, or one .gguf file "
      "(required)",
      [&](S n, S t) { c.model = not_empty(n, t); });
  add("worker-id", "id in every log line and in the ready callback (default: a fresh UUID)",
      [&](S n, S t) { c.worker_id = not_empty(n, t); });
  add("port", "port to listen on; 0 takes a free one, named in `ready` (default: 8080)",
      [&](S n, S t) { c.port = static_cast<uint16_t>(number<int>(n, t, 0, 65535)); });
  add("callback-url", "http URL that is told when the worker is ready (default: none)",
      [&](S, S t) { c.callback_url = t; });
  add("host", "address to listen on (default: 0.0.0.0)",
      [&](S n, S t) { c.host = not_empty(n, t); });
  add("advertise-host", "host part of the uri that the callback names (default: localhost)",
      [&](S n, S t) { c.advertise_host = not_empty(n, t); });
  add("model-name", "name the model is served under (default: last part of --model)",
      [&](S n, S t) { c.model_name = not_empty(n, t); });
  add("dtype",
      "auto, f32, bf16, f16: type of the weights; sums are f32 (default: the checkpoint's)",
      [&](S n, S t) {
        c.dtype = one_of(n, t, {"auto", "f32", "bf16", "f16"});
      });
  add("quantize",
      "none, q8_0, q6_k, q5_k, q4_k, q4_0, iq4_nl, f8_e4m3 (the cuda worker's): what weights "
      "become that are not quantised (default: none)",
      [&](S n, S t) {
        c.quantize = one_of(n, t, {"none", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "iq4_nl", kF8});
      });
  add("kv-dtype",
      "auto, f32, bf16, f16, q8_0, f8_e4m3 (the cuda worker's) (default: f32 where --dtype is, "
      "else bf16)",
      [&](S n, S t) {
        c.kv_dtype = one_of(n, t, {"auto", "f32", "bf16", "f16", "q8_0", kF8});
      });
  add("context-length", "tokens, prompt and output together (default: the model's, at most 8192)",
      [&](S n, S t) { c.context_length = number<int>(n, t, 1, 1 << 24); });
  add("max-batch", "sequences in one step (default: 32)",
      [&](S n, S t) { c.max_batch = number<int>(n, t, 1, 4096); });
  add("max-queue", "requests that may wait (default: 256)",
      [&](S n, S t) { c.max_queue = number<int>(n, t, 0, 1 << 20); });
  add("kv-memory", "bytes for the kv cache, or auto (default: auto)", [&](S n, S t) {
    c.kv_memory_bytes.reset();
    if (t != "auto") c.kv_memory_bytes = number<uint64_t>(n, t, 1, uint64_t{1} << 50);
  });
  add("threads",
      "compute threads, or auto: cgroup quota, cpuset, fast physical cores (default: auto)",
      [&](S n, S t) {
        c.threads.reset();
        if (t != "auto") c.threads = number<int>(n, t, 1, 1024);
      });
  add("speculate", "auto, off: guess tokens where it pays; changes no answer (default: auto)",
      [&](S n, S t) {
        c.speculate = one_of(n, t, {"auto", "off"}) == "auto";
      });
  add("verify-against-cpu",
      "first layers whose results are compared with the CPU's at start; 0 = off (default: 2 with a "
      "device, else 0)",
      [&](S n, S t) { c.verify_against_cpu = number<int>(n, t, 0, 4096); });
  add("request-timeout", "seconds until a request ends with TIMEOUT; 0 = never (default: 0)",
      [&](S n, S t) { c.request_timeout = seconds(n, t, 0); });
  add("shutdown-timeout", "seconds that running requests get to finish (default: 30)",
      [&](S n, S t) { c.shutdown_timeout = seconds(n, t, 0); });
  add("stall-timeout", "seconds without a finished step until /livez fails (default: 60)",
      [&](S n, S t) { c.stall_timeout = seconds(n, t, 0.1); });
  add("result-retention",
      "seconds that an answer is kept for repeats, within 64 MiB; 0 = off (default: 300)",
      [&](S n, S t) { c.result_retention = seconds(n, t, 0); });
  add("resume-grace", "seconds that a resumable request runs on without readers (default: 60)",
      [&](S n, S t) { c.resume_grace = seconds(n, t, 0); });
  add("seed-default", "seed of requests that name none (default: random)", [&](S n, S t) {
    c.seed_default = number<uint64_t>(n, t, 0, std::numeric_limits<uint64_t>::max());
  });
  add("log-format", "json, pretty (default: json)", [&](S n, S t) {
    c.log_json = one_of(n, t, {"json", "pretty"}) == "json";
  });
  add("log-level", "debug, info, warn, error (default: info)", [&](S n, S t) {
    one_of(n, t, {"debug", "info", "warn", "error"});
    c.log_level = t == "debug"  ? Level::kDebug
                  : t == "info" ? Level::kInfo
                  : t == "warn" ? Level::kWarn
                                : Level::kError;
  });
  for (const char* name : {"api-key-file", "tls-cert", "tls-key"}) {
    add(name, "not supported yet", [](S n, S) { refuse("--" + n + " is not supported yet"); });
  }
  if (device_flag != nullptr) {
    add(device_flag, "index of the device (default: 0)",
        [&](S n, S t) { c.device_index = number<int>(n, t, 0, 1023); });
  }
  return flags;
}

// Values of the --config file as text, by flag name.
std::map<std::string, std::string> read_config_file(const std::string& path,
                                                    const std::vector<Flag>& flags) {
  std::ifstream in(path, std::ios::binary);
  if (!in) refuse("--config: cannot read '" + path + "'");
  std::string text(static_cast<size_t>(kMaxConfigBytes) + 1, '\0');
  in.read(text.data(), kMaxConfigBytes + 1);
  if (in.gcount() > kMaxConfigBytes) refuse("--config: '" + path + "' is larger than 1 MiB");
  text.resize(static_cast<size_t>(in.gcount()));
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) refuse("--config: '" + path + "' is not a JSON object");
  std::map<std::string, std::string> values;
  for (const auto& item : json.items()) {
    const std::string& key = item.key();
    const auto& value = item.value();
    if (std::none_of(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == key; })) {
      refuse("--config: '" + path + "' names '" + key + "', which is no flag");
    }
    if (!value.is_string() && !value.is_number()) {
      refuse("--config: '" + key + "' must be a string or a number");
    }
    values[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return values;
}

// Last component of the path, without a model file's ending.
std::string default_model_name(const std::string& model) {
  std::filesystem::path path = std::filesystem::absolute(model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const auto ending = path.extension();
  return (ending == ".gguf" || ending == ".safetensors" ? path.stem() : path.filename()).string();
}

}  // namespace

std::string new_uuid() {
  thread_local std::random_device random;  // to make one takes longer than to answer a probe
  std::array<uint32_t, 4> words;
  for (uint32_t& word : words) word = static_cast<uint32_t>(random());
  words[1] = (words[1] & 0xffff0fffu) | 0x00004000u;  // version 4
  words[2] = (words[2] & 0x3fffffffu) | 0x80000000u;  // RFC 4122 variant
  std::array<char, 37> text;
  std::snprintf(text.data(), text.size(), "%08x-%04x-%04x-%04x-%04x%08x", words[0], words[1] >> 16,
                words[1] & 0xffffu, words[2] >> 16, words[2] & 0xffffu, words[3]);
  return text.data();
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !std::isxdigit(static_cast<unsigned char>(text[i]))) return false;
  }
  return true;
}

CommandLine parse_command_line(int argc, const char* const* argv, const Program& program) {
  CommandLine result;
  if (program.device_flag != nullptr) result.config.verify_against_cpu = 2;
  const std::vector<Flag> flags = worker_flags(result.config, program.device_flag);

  CLI::App app{"Serves one language model over HTTP until told to stop.", program.name};
  app.set_version_flag("--version", program.name + " " + program.version);
  std::vector<std::string> texts(flags.size());
  std::vector<CLI::Option*> options;
  for (size_t i = 0; i < flags.size(); ++i) {
    options.push_back(app.add_option("--" + flags[i].name, texts[i], flags[i].help)
                          ->envname(environment_name(flags[i].name)));
  }
  std::string file;
  app.add_option("--config", file, "JSON file with flag names as keys")->envname("LLORCH_CONFIG");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.text = app.help();
    return result;
  } catch (const CLI::CallForVersion&) {
    result.text = program.name + " " + program.version + "\n";
    return result;
  } catch (const CLI::ParseError& error) {
    refuse(error.what());
  }

  std::map<std::string, std::string> from_file;
  if (!file.empty()) from_file = read_config_file(file, flags);
  for (size_t i = 0; i < flags.size(); ++i) {
    if (options[i]->count() > 0) {
      flags[i].set(texts[i]);
    } else if (const auto it = from_file.find(flags[i].name); it != from_file.end()) {
      flags[i].set(it->second);
    }
  }
  Config& config = result.config;
  if (config.model.empty()) refuse("--model is required");
  if (!program.f8) {
    if (config.quantize == kF8) refuse("--quantize: f8_e4m3 is for the cuda worker");
    if (config.kv_dtype == kF8) refuse("--kv-dtype: f8_e4m3 is for the cuda worker");
  }
  if (config.verify_against_cpu > 0 && !program.computes) {
    refuse("--verify-against-cpu: this worker's results are made up");
  }
  if (config.worker_id.empty()) config.worker_id = new_uuid();
  if (config.model_name.empty()) config.model_name = default_model_name(config.model);
  return result;
}

}  // namespace llorch
