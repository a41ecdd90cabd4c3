// For tests of this layer and those above: temporary folders, and safetensors files made by hand.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

namespace llorch::testing {

// A fresh folder, removed with all it holds.
class TempFolder {
 public:
  TempFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("llorch-test-" + std::to_string(std::random_device{}()) + "-" +
               std::to_string(std::random_device{}()))) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  void remove(const std::string& name) const { std::filesystem::remove(path_ / name); }

 private:
  std::filesystem::path path_;
};

// A safetensors file: length prefix, `header`, `data`.
inline std::string safetensors(const std::string& header, const std::string& data = "") {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>((static_cast<uint64_t>(header.size()) >> (8 * i)) & 0xFF));
  }
  return file + header + data;
}

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> dims;
  std::string bytes;
};

// The same for whole tensors, laid out one after another.
inline std::string safetensors(const std::vector<TestTensor>& tensors) {
  std::string header = "{", data;
  for (const TestTensor& t : tensors) {
    std::string shape;
    for (const int64_t dim : t.dims) {
      shape += (shape.empty() ? "" : ",") + std::to_string(dim);
    }
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + R"(":{"dtype":")" + t.dtype +
              R"(","shape":[)" + shape + R"(],"data_offsets":[)" + std::to_string(data.size()) +
              "," + std::to_string(data.size() + t.bytes.size()) + "]}";
    data += t.bytes;
  }
  return safetensors(header + "}", data);
}

// What `action` throws must be an Error of `code` whose one line holds every one of `parts`.
template <class Action>
void expect_error(ErrorCode code, const std::vector<std::string>& parts, const Action& action) {
  try {
    action();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_EQ(name(e.code()), std::string(name(code))) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    for (const std::string& part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown; wanted: " << (parts.empty() ? "an Error" : parts.front());
}

}  // namespace llorch::testing
