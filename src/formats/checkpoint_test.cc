#include "formats/checkpoint.h"

#include "formats/gguf_testing.h"
#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;
using testing::GgufFile;
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
  c.read_ahead(*c.find("w"));
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
  folder.write("m.gguf", "GGML");
  refuse(ErrorCode::kCorruptFile, folder.file("m.gguf"),
         {folder.file("m.gguf") + ": does not begin with GGUF"});
  folder.write("m.bin", "x");
  refuse(ErrorCode::kUnsupported, folder.file("m.bin"), {"m.bin: is neither a directory nor"});
}

TEST(Checkpoint, NamesTheTextThatIsMissingOrEmpty) {
  for (const std::string name : {"config.json", "tokenizer.json"}) {
    const Folder folder;
    folder.write(name, "");
    folder.expect_corrupt({folder.file(name) + ": is empty"});
    folder.remove(name);
    folder.expect_corrupt({name, name == "config.json" ? "no such file" : "tokenizer.model"});
    std::filesystem::create_directory(folder.file(name));
    folder.expect_corrupt({folder.file(name) + ": is not a regular file"});
  }
}

TEST(Checkpoint, TakesTokenizerModelWhereThereIsNoTokenizerJson) {
  const Folder folder;
  folder.write("tokenizer.model", "pieces");
  EXPECT_EQ(Checkpoint::open(folder.path()).tokenizer(), "{}");
  EXPECT_EQ(Checkpoint::open(folder.path()).sentencepiece(), "");
  folder.remove("tokenizer.json");
  EXPECT_EQ(Checkpoint::open(folder.path()).tokenizer(), "");
  EXPECT_EQ(Checkpoint::open(folder.path()).sentencepiece(), "pieces");
  folder.remove("tokenizer.model");
  folder.expect_corrupt({"holds neither tokenizer.json nor tokenizer.model"});
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

// One tensor, and what a set's file says of itself.
std::string shard(const std::string& tensor, uint32_t number, uint32_t count,
                  uint32_t total = UINT32_MAX) {
  GgufFile file;
  file.text("general.architecture", "llama").number("split.no", number);
  file.number("split.count", count);
  if (total != UINT32_MAX) {
    file.number("split.tensors.count", total);
  }
  return file.tensor(tensor, {1}, 0, "abcd").build();
}

TEST(Checkpoint, OpensAGgufFileAndFoldersOfOne) {
  const TempFolder folder;
  folder.write("m.gguf", GgufFile().text("a", "b").tensor("w", {1}, 0, "abcd").build());
  for (const std::string& path : {folder.file("m.gguf"), folder.path()}) {
    const auto c = Checkpoint::open(path);
    EXPECT_EQ(c.path(), folder.file("m.gguf"));
    EXPECT_EQ(c.config_file(), folder.file("m.gguf"));
    EXPECT_EQ(c.directory(), folder.path());
    ASSERT_NE(c.gguf(), nullptr);
    EXPECT_EQ(c.gguf()->string("a"), "b");
    EXPECT_NE(c.find("w"), nullptr);
  }
  folder.write("config.json", "{}");  // many folders of GGUF files have one
  EXPECT_NE(Checkpoint::open(folder.path()).gguf(), nullptr);
  folder.write("n.gguf", "GGUF");
  expect_error(ErrorCode::kCorruptFile, {folder.path() + ": holds 2 GGUF models"},
               [&] { Checkpoint::open(folder.path()); });
}

TEST(Checkpoint, OpensASplitSetByAnyOfItsFiles) {
  const TempFolder folder;
  const std::string first = folder.file("m-00001-of-00003.gguf");
  folder.write("m-00001-of-00003.gguf", shard("a", 0, 3, 3));
  folder.write("m-00002-of-00003.gguf", shard("b", 1, 3));
  folder.write("m-00003-of-00003.gguf", shard("c", 2, 3));
  for (const std::string& path : {first, folder.file("m-00003-of-00003.gguf"), folder.path()}) {
    const auto c = Checkpoint::open(path);
    EXPECT_EQ(c.path(), first);
    EXPECT_EQ(c.gguf()->file(), first);
    ASSERT_EQ(c.tensors().size(), 3u);
    EXPECT_EQ(c.find("b")->file, folder.file("m-00002-of-00003.gguf"));
    c.drop(*c.find("b"));
  }
}

TEST(Checkpoint, RefusesSplitSetsThatContradictThemselves) {
  const TempFolder folder;
  const std::string first = folder.file("m-00001-of-00002.gguf");
  const auto refuse = [&](const std::string& path, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::kCorruptFile, parts, [&] { Checkpoint::open(path); });
  };
  folder.write("m-00001-of-00002.gguf", shard("a", 0, 2, 2));
  refuse(first, {"split.count: is 2, but m-00002-of-00002.gguf is not there"});
  folder.write("m-00002-of-00002.gguf", shard("b", 0, 2));
  refuse(first, {"m-00002-of-00002.gguf: split.no: is not 1"});
  folder.write("m-00002-of-00002.gguf", shard("b", 1, 3));
  refuse(first, {"m-00002-of-00002.gguf: split.count: is not 2"});
  folder.write("m-00002-of-00002.gguf", shard("a", 1, 2));
  refuse(first, {"m-00002-of-00002.gguf: a: is also in ", "m-00001-of-00002.gguf"});
  folder.write("m-00002-of-00002.gguf", shard("b", 1, 2));
  folder.write("m-00001-of-00002.gguf", shard("a", 0, 2, 9));
  refuse(first, {"split.tensors.count: is 9, but the files hold 2 tensors"});
  folder.write("renamed.gguf", shard("a", 0, 2, 2));
  refuse(folder.file("renamed.gguf"), {"renamed.gguf: split.count: is 2, but the file's name"});
  folder.write("m-00001-of-00004.gguf", shard("a", 0, 1000000));
  refuse(folder.file("m-00001-of-00004.gguf"), {"split.count: must be an integer from 0 to 4096"});
}

}  // namespace
}  // namespace llorch
