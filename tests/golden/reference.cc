#include "reference.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <gtest/gtest.h>

#include "base/os.h"
#include "formats/safetensors.h"

namespace llorch {
namespace {

constexpr char kData[] = "tests/golden/data/";

template <class T>
std::vector<T> values(const std::vector<StoredTensor>& tensors, const std::string& name) {
  for (const StoredTensor& tensor : tensors) {
    if (tensor.name == name) {
      std::vector<T> out(tensor.bytes.size() / sizeof(T));
      std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
      return out;
    }
  }
  ADD_FAILURE() << "the reference has no " << name;
  return {};
}

}  // namespace

GoldenReference::GoldenReference(const std::string& golden) {
  const std::string path = golden_folder(golden) + "/reference.safetensors";
  const os::MappedFile file(path);
  const auto tensors = parse_safetensors(file.bytes(), path);
  prompt = values<int32_t>(tensors, "prompt");
  greedy = values<int32_t>(tensors, "greedy");
  logits = values<float>(tensors, "logits");
  logprobs = values<float>(tensors, "logprobs");
  bf16_error = values<float>(tensors, "bf16_error");
  f16_error = values<float>(tensors, "f16_error");
}

std::string golden_folder(const std::string& golden) { return kData + golden; }

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  std::error_code not_there;
  for (const auto& entry : std::filesystem::directory_iterator(kData, not_there)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace llorch
