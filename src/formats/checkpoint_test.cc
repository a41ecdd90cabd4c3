#include "formats/checkpoint.h"

#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::safetensors;
using testing::TempFolder;

// A folder with the least that opens: texts that only the layers above read, and one tensor.
struct Folder : TempFolder {
  Folder() {
    write("config.json", R"({"model_type":"llama"})");
    write("tokenizer.json", "{}");
    write("model.safetensors", tensor("w"));
  }
  static std::string tensor(const std::string& name) {
    return safetensors({{name, "F32", {1}, "abcd"}});
  }
  void expect_corrupt(const std::vector<std::string>& parts) const {
    expect_error(ErrorCode::kCorruptFile, parts, [&] { Checkpoint::open(path()); });
  }
};

TEST(Checkpoint, OpensADirectoryAndReadsItsTexts) {
  Folder folder;
  folder.write("generation_config.json", "gen");
  const auto c = Checkpoint::open(folder.path());
  EXPECT_EQ(c.directory(), folder.path());
  EXPECT_EQ(c.path(), folder.file("model.safetensors"));
  EXPECT_EQ(c.config(), R"({"model_type":"llama"})");
  EXPECT_EQ(c.config_file(), folder.file("config.json"));
  EXPECT_EQ(c.tokenizer(), "{}");
  EXPECT_EQ(c.generation_config(), "gen");
  EXPECT_EQ(c.tokenizer_config(), "");
  ASSERT_NE(c.find("w"), nullptr);
  EXPECT_EQ(c.find("w")->file, folder.file("model.safetensors"));
  EXPECT_EQ(c.find("v"), nullptr);
}

TEST(Checkpoint, KeepsItsBytesWhenMoved) {
  const Folder folder;
  auto opened = std::make_unique<Checkpoint>(Checkpoint::open(folder.path()));
  const Checkpoint c = std::move(*opened);
  opened.reset();
  c.drop(*c.find("w"));
  const auto bytes = c.find("w")->bytes;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "abcd");
}

TEST(Checkpoint, OpensOneSafetensorsFileBesideItsConfig) {
  Folder folder;
  folder.write("other.safetensors", Folder::tensor("v"));
  const auto c = Checkpoint::open(folder.file("other.safetensors"));
  EXPECT_EQ(c.directory(), folder.path());
  EXPECT_NE(c.find("v"), nullptr);
  EXPECT_EQ(c.find("w"), nullptr);
}

TEST(Checkpoint, OpensShardsWithAndWithoutAnIndex) {
  Folder folder;
  folder.remove("model.safetensors");
  folder.write("model-00001-of-00002.safetensors", Folder::tensor("a"));
  folder.write("model-00002-of-00002.safetensors", Folder::tensor("b"));
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 2u);
  folder.write("consolidated.safetensors", Folder::tensor("a"));  // not of the index: not read
  folder.write("model.safetensors.index.json",
               R"({"metadata":{"total_size":8},"weight_map":{
                   "a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 2u);
}

TEST(Checkpoint, RefusesPathsThatHoldNoModel) {
  const Folder folder;
  const auto refuse = [&](ErrorCode code, const std::string& path,
                          const std::vector<std::string>& parts) {
    expect_error(code, parts, [&] { Checkpoint::open(path); });
  };
  refuse(ErrorCode::kCorruptFile, folder.file("none"), {folder.file("none"), "no such file"});
  refuse(ErrorCode::kCorruptFile, folder.file("x.safetensors"), {"x.safetensors: no such file"});
  refuse(ErrorCode::kCorruptFile, folder.file("config.json/x"), {"config.json/x: "});
  refuse(ErrorCode::kCorruptFile, "", {"no such file"});
  folder.write("m.gguf", "GGUF");
  refuse(ErrorCode::kUnsupported, folder.file("m.gguf"),
         {folder.file("m.gguf") + ": GGUF files are not supported yet"});
  folder.write("m.bin", "x");
  refuse(ErrorCode::kUnsupported, folder.file("m.bin"), {"m.bin: is neither a directory nor"});
}

TEST(Checkpoint, NamesTheTextThatIsMissingOrEmpty) {
  for (const std::string name : {"config.json", "tokenizer.json"}) {
    const Folder folder;
    folder.write(name, "");
    folder.expect_corrupt({folder.file(name) + ": is empty"});
    folder.remove(name);
    folder.expect_corrupt({folder.file(name) + ": no such file"});
    std::filesystem::create_directory(folder.file(name));
    folder.expect_corrupt({folder.file(name) + ": is not a regular file"});
  }
}

TEST(Checkpoint, CapsTheSizeOfConfig) {
  const Folder folder;
  folder.write("config.json", std::string((size_t{16} << 20) + 1, ' '));
  folder.expect_corrupt({"config.json: has 16777217 bytes; at most 16777216"});
}

TEST(Checkpoint, RefusesAFolderWithoutWeights) {
  const Folder folder;
  folder.remove("model.safetensors");
  folder.expect_corrupt({folder.path() + ": holds 0 .safetensors files"});
}

TEST(Checkpoint, NamesTheDamagedFile) {
  const Folder folder;
  folder.write("model.safetensors", "short");
  folder.expect_corrupt({folder.file("model.safetensors") + ": a safetensors file has at least 8"});
}

TEST(Checkpoint, RefusesATensorInTwoShards) {
  const Folder folder;
  folder.remove("model.safetensors");
  folder.write("m1.safetensors", Folder::tensor("a"));
  folder.write("m2.safetensors", Folder::tensor("a"));
  folder.expect_corrupt({folder.file("m2.safetensors") + ": a: is also in ", "m1.safetensors"});
  folder.write("model.safetensors.index.json",
               R"({"weight_map":{"a":"m1.safetensors","b":"m2.safetensors"}})");
  folder.expect_corrupt({"m2.safetensors: a: is also in ", "m1.safetensors"});
}

TEST(Checkpoint, RefusesAnIndexThatContradictsTheShards) {
  const Folder folder;
  folder.remove("model.safetensors");
  folder.write("m1.safetensors", Folder::tensor("a"));
  folder.write("m2.safetensors", Folder::tensor("b"));
  const auto with_index = [&](const std::string& index, const std::vector<std::string>& parts) {
    folder.write("model.safetensors.index.json", index);
    folder.expect_corrupt(parts);
  };
  with_index("{", {"index.json: not valid JSON"});
  with_index("{}", {"index.json: weight_map: is missing"});
  with_index(R"({"weight_map":[]})", {"weight_map: must be an object"});
  with_index(R"({"weight_map":{"a":3}})", {"weight_map.a: must be a string; got 3"});
  with_index(R"({"weight_map":{"a":null}})", {"weight_map.a: names no shard"});
  with_index(R"({"weight_map":{"a":"m3.safetensors"}})",
             {"index.json: weight_map.a: its shard 'm3.safetensors' is not there"});
  with_index(R"({"weight_map":{"a":"m1.safetensors","c":"m2.safetensors"}})",
             {folder.file("m2.safetensors") + ": c: is not in this shard"});
  with_index(R"({"weight_map":{"a":"m2.safetensors","b":"m1.safetensors"}})",
             {folder.file("m2.safetensors") + ": a: is not in this shard"});
}

TEST(Checkpoint, RefusesShardNamesThatLeadElsewhere) {
  const Folder folder;
  folder.remove("model.safetensors");
  for (const std::string shard :
       {"../m.safetensors", "/etc/m.safetensors", "sub/m.safetensors", "..\\\\m.safetensors",
        "C:m.safetensors", "..", ".safetensors", "m.bin", "m\\u0000.safetensors"}) {
    folder.write("model.safetensors.index.json", R"({"weight_map":{"a":")" + shard + "\"}}");
    folder.expect_corrupt({"index.json: weight_map.a: shard '", "is not the name of"});
  }
}

}  // namespace
}  // namespace llorch
