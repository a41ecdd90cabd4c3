#include "base/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

Config parse(std::vector<const char*> arguments, const char* device_flag = nullptr) {
  arguments.insert(arguments.begin(), "worker");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data(),
                            {"llorch-cpu-candled", "0", device_flag})
      .config;
}

std::string refusal(std::vector<const char*> arguments, const char* device_flag = nullptr) {
  try {
    parse(std::move(arguments), device_flag);
  } catch (const Error& error) {
    EXPECT_EQ(exit_status(error.code()), 2);
    return error.what();
  }
  return "accepted";
}

TEST(Config, HasTheContractsDefaults) {
  const Config c = parse({"--model", "/models/tiny"});
  EXPECT_TRUE(is_uuid(c.worker_id));
  EXPECT_EQ(c.port, 8080);
  EXPECT_EQ(c.callback_url, "");
  EXPECT_EQ(c.host, "0.0.0.0");
  EXPECT_EQ(c.advertise_host, "localhost");
  EXPECT_EQ(c.model_name, "tiny");
  EXPECT_EQ(c.dtype, "auto");
  EXPECT_EQ(c.kv_dtype, "auto");
  EXPECT_FALSE(c.context_length.has_value());
  EXPECT_EQ(c.max_batch, 32);
  EXPECT_EQ(c.max_queue, 256);
  EXPECT_FALSE(c.kv_memory_bytes.has_value());
  EXPECT_FALSE(c.threads.has_value());
  EXPECT_TRUE(c.speculate);
  EXPECT_EQ(c.request_timeout.count(), 0);
  EXPECT_EQ(c.shutdown_timeout.count(), 30'000);
  EXPECT_EQ(c.stall_timeout.count(), 60'000);
  EXPECT_EQ(c.result_retention.count(), 300'000);
  EXPECT_EQ(c.resume_grace.count(), 60'000);
  EXPECT_FALSE(c.seed_default.has_value());
  EXPECT_TRUE(c.log_json);
}

TEST(Config, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const auto file = std::filesystem::temp_directory_path() / "llorch_config_test.json";
  std::ofstream(file) << R"({"port": 1, "host": "127.0.0.2", "max-queue": 7})";
  setenv("LLORCH_PORT", "2", 1);
  setenv("LLORCH_HOST", "127.0.0.3", 1);
  const Config c = parse({"--model", "m", "--port", "3", "--config", file.c_str()});
  unsetenv("LLORCH_PORT");
  unsetenv("LLORCH_HOST");
  std::filesystem::remove(file);
  EXPECT_EQ(c.port, 3);
  EXPECT_EQ(c.host, "127.0.0.3");
  EXPECT_EQ(c.max_queue, 7);
  EXPECT_EQ(c.max_batch, 32);
}

TEST(Config, SpeculatesUnlessToldNotTo) {
  EXPECT_TRUE(parse({"--model", "m", "--speculate", "auto"}).speculate);
  EXPECT_FALSE(parse({"--model", "m", "--speculate", "off"}).speculate);
}

TEST(Config, VerifiesTwoLayersOfADeviceUnlessToldOtherwise) {
  EXPECT_EQ(parse({"--model", "m"}, "cuda-device").verify_against_cpu, 2);
  EXPECT_EQ(parse({"--model", "m"}).verify_against_cpu, 0);
  EXPECT_EQ(parse({"--model", "m", "--verify-against-cpu", "0"}, "cuda-device").verify_against_cpu,
            0);
  EXPECT_EQ(parse({"--model", "m", "--verify-against-cpu", "5"}).verify_against_cpu, 5);
  EXPECT_NE(refusal({"--model", "m", "--verify-against-cpu", "all"}).find("--verify-against-cpu"),
            std::string::npos);
  const char* const one_layer[] = {"worker", "--model", "m", "--verify-against-cpu", "1"};
  EXPECT_THROW(
      parse_command_line(5, one_layer,
                         {.name = "llorch-fake-candled", .version = "0", .computes = false}),
      Error);
}

TEST(Config, ModelNameIsTheLastComponentWithoutAFileEnding) {
  EXPECT_EQ(parse({"--model", "/a/Qwen2-0.5B/"}).model_name, "Qwen2-0.5B");
  EXPECT_EQ(parse({"--model", "/a/b.safetensors"}).model_name, "b");
  EXPECT_EQ(parse({"--model", "/a/Llama-3.gguf"}).model_name, "Llama-3");
  EXPECT_EQ(parse({"--model", "/a/b", "--model-name", "x"}).model_name, "x");
}

TEST(Config, TakesEveryTypeOfTheKvCache) {
  for (const char* type : {"auto", "f32", "bf16", "f16", "q8_0"}) {
    EXPECT_EQ(parse({"--model", "m", "--kv-dtype", type}).kv_dtype, type);
  }
}

TEST(Config, TakesF8WhereTheBackendHasIt) {
  const auto parsed = [](const char* flag, bool f8) {
    const char* const arguments[] = {"worker", "--model", "m", flag, "f8_e4m3"};
    return parse_command_line(5, arguments, {"llorch-cuda-candled", "0", "cuda-device", f8}).config;
  };
  EXPECT_EQ(parsed("--quantize", true).quantize, "f8_e4m3");
  EXPECT_EQ(parsed("--kv-dtype", true).kv_dtype, "f8_e4m3");
  for (const char* flag : {"--quantize", "--kv-dtype"}) {
    EXPECT_THROW(parsed(flag, false), Error) << flag;
    EXPECT_EQ(refusal({"--model", "m", flag, "f8_e4m3"}),
              std::string(flag) + ": f8_e4m3 is for the cuda worker");
  }
}

TEST(Config, RefusesWhatIsWrongByNameOfTheFlag) {
  const std::vector<std::pair<std::vector<const char*>, const char*>> cases = {
      {{"--nonsense"}, "--nonsense"},
      {{"--port", "65536"}, "--port"},
      {{"--port", "-1"}, "--port"},
      {{"--port", "80x"}, "--port"},
      {{"--dtype", "int3"}, "--dtype"},
      {{"--kv-dtype", "q4_0"}, "--kv-dtype"},
      {{"--threads", "0"}, "--threads"},
      {{"--shutdown-timeout", "soon"}, "--shutdown-timeout"},
      {{"--result-retention", "-1"}, "--result-retention"},
      {{"--resume-grace", "soon"}, "--resume-grace"},
      {{"--shutdown-timeout", "nan"}, "--shutdown-timeout"},
      {{"--kv-memory", "much"}, "--kv-memory"},
      {{"--worker-id", ""}, "--worker-id"},
      {{"--speculate", "on"}, "--speculate"},
      {{"--config", "/does/not/exist"}, "--config"},
      {{"--cuda-device", "0"}, "--cuda-device"},
  };
  for (auto [arguments, flag] : cases) {
    arguments.insert(arguments.end(), {"--model", "m"});
    const std::string text = refusal(arguments);
    EXPECT_NE(text.find(flag), std::string::npos) << flag << ": " << text;
  }
  EXPECT_NE(refusal({}).find("--model"), std::string::npos);
}

TEST(Config, DeviceFlagBelongsToItsOwnBinary) {
  EXPECT_EQ(parse({"--model", "m", "--cuda-device", "3"}, "cuda-device").device_index, 3);
  EXPECT_NE(refusal({"--model", "m", "--metal-device", "1"}, "cuda-device"), "accepted");
}

TEST(Config, WhatIsNotThereYetIsRefusedByName) {
  const std::string text = refusal({"--api-key-file", "f", "--model", "m"});
  EXPECT_NE(text.find("--api-key-file"), std::string::npos) << text;
  EXPECT_NE(text.find("not supported yet"), std::string::npos) << text;
}

TEST(Config, ConfigFileMustBeAnObjectOfFlags) {
  const auto file = std::filesystem::temp_directory_path() / "llorch_config_test_bad.json";
  for (const char* text : {"[]", "{", R"({"prot": 1})", R"({"port": [1]})", R"({"port": true})"}) {
    std::ofstream(file) << text;
    EXPECT_NE(refusal({"--model", "m", "--config", file.c_str()}).find("--config"),
              std::string::npos)
        << text;
  }
  std::filesystem::remove(file);
}

TEST(Uuid, IsVersion4AndTakesOnlyTheHyphenatedForm) {
  const std::string uuid = new_uuid();
  EXPECT_TRUE(is_uuid(uuid)) << uuid;
  EXPECT_EQ(uuid[14], '4');
  EXPECT_NE(std::string("89ab").find(uuid[19]), std::string::npos);
  EXPECT_NE(uuid, new_uuid());
  EXPECT_FALSE(is_uuid("{" + uuid + "}"));
  EXPECT_FALSE(is_uuid("0123456789abcdef0123456789abcdef"));
  EXPECT_TRUE(is_uuid("550E8400-e29b-41d4-a716-446655440000"));
}

}  // namespace
}  // namespace llorch
