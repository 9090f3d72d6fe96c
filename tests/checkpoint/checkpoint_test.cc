#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/checkpoint.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::floats;
using testing::pickle_of;
using testing::TemporaryDirectory;
using testing::torch_file;
using testing::ZipOptions;

constexpr auto kIndex = "pytorch_model.bin.index.json";

// A file of one float tensor with these values.
std::string file_with(const std::string& name,
                      const std::vector<float>& values,
                      const ZipOptions& options = {}) {
  const auto size = static_cast<int64_t>(values.size());
  const std::string tensor = op::tensor({.sizes = {size}, .numel = size});
  return torch_file(pickle_of(op::dict({op::text(name), tensor})), {floats(values)}, options);
}

std::vector<float> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  const float* const data = flat.const_data_ptr<float>();
  return {data, data + flat.numel()};
}

std::string message_of(const std::filesystem::path& path) {
  try {
    Checkpoint::open(path);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "opened without complaint";
}

TEST(Checkpoint, GivesTensorsByName) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", file_with("w", {1, 2, 3}));
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.path(), path.string());
  EXPECT_EQ(checkpoint.entries().size(), 1U);
  EXPECT_TRUE(checkpoint.contains("w"));
  EXPECT_FALSE(checkpoint.contains("v"));
  EXPECT_EQ(checkpoint.find("w"), &checkpoint.entries()[0]);
  EXPECT_EQ(checkpoint.file_of("w"), path.string());
  EXPECT_EQ(checkpoint.tensor("w").scalar_type(), at::kFloat);
  EXPECT_FALSE(checkpoint.tensor("w").requires_grad());
  EXPECT_EQ(values_of(checkpoint.tensor("w")), (std::vector<float>{1, 2, 3}));
}

TEST(Checkpoint, SharesTheMappingBetweenTensorsOfOneName) {
  const TemporaryDirectory directory;
  const auto checkpoint =
      Checkpoint::open(directory.write("model.ckpt", file_with("w", {1, 2, 3})));
  EXPECT_EQ(checkpoint.tensor("w").data_ptr(), checkpoint.tensor("w").data_ptr());
}

TEST(Checkpoint, TensorsOutliveIt) {
  const TemporaryDirectory directory;
  at::Tensor tensor;
  {
    const auto checkpoint =
        Checkpoint::open(directory.write("model.ckpt", file_with("w", {1, 2, 3})));
    tensor = checkpoint.tensor("w");
  }
  EXPECT_EQ(values_of(tensor), (std::vector<float>{1, 2, 3}));
}

TEST(Checkpoint, CopiesAreCheapAndStayValid) {
  const TemporaryDirectory directory;
  auto first = Checkpoint::open(directory.write("a.ckpt", file_with("w", {1})));
  const Checkpoint second = first;
  first = Checkpoint::open(directory.write("b.ckpt", file_with("v", {2})));
  EXPECT_EQ(values_of(second.tensor("w")), std::vector<float>{1});
  EXPECT_EQ(values_of(first.tensor("v")), std::vector<float>{2});
}

TEST(Checkpoint, KeepsWritesToTensorsFromReachingTheFile) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", file_with("w", {1, 2, 3}));
  const auto checkpoint = Checkpoint::open(path);
  checkpoint.tensor("w").zero_();
  EXPECT_EQ(values_of(checkpoint.tensor("w")), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(values_of(Checkpoint::open(path).tensor("w")), (std::vector<float>{1, 2, 3}));
}

TEST(Checkpoint, CopiesWhatIsNotAlignedToItsElements) {
  // Without padding every letter of the name moves the data by a byte.
  for (const std::string name : {"w", "ww", "www", "wwww"}) {
    const TemporaryDirectory directory;
    const auto checkpoint = Checkpoint::open(
        directory.write("model.ckpt", file_with(name, {1, 2, 3}, {.alignment = 1})));
    const at::Tensor tensor = checkpoint.tensor(name);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % sizeof(float), 0U);
    EXPECT_EQ(values_of(tensor), (std::vector<float>{1, 2, 3}));
  }
}

TEST(Checkpoint, GivesViewsTheirStridesAlignedOrNot) {
  const std::string column = op::tensor({.sizes = {2}, .strides = {3}, .offset = 1, .numel = 6});
  for (const size_t alignment : {64U, 1U}) {
    for (const std::string name : {"w", "ww", "www", "wwww"}) {
      const TemporaryDirectory directory;
      const auto checkpoint = Checkpoint::open(directory.write(
          "model.ckpt", torch_file(pickle_of(op::dict({op::text(name), column})),
                                   {floats({0, 1, 2, 3, 4, 5})}, {.alignment = alignment})));
      EXPECT_EQ(checkpoint.tensor(name).stride(0), 3);
      EXPECT_EQ(values_of(checkpoint.tensor(name)), (std::vector<float>{1, 4}));
    }
  }
}

TEST(Checkpoint, GivesTensorsWithoutDimensionsAndWithoutElements) {
  const TemporaryDirectory directory;
  const std::string code =
      op::dict({op::text("scalar"), op::tensor({.sizes = {}, .strides = {}, .numel = 1}),
                op::text("nothing"),
                op::tensor({.sizes = {3, 0}, .strides = {1, 1}, .key = "1", .numel = 0})});
  const auto checkpoint = Checkpoint::open(
      directory.write("model.ckpt", torch_file(pickle_of(code), {floats({7}), ""})));
  EXPECT_EQ(checkpoint.tensor("scalar").dim(), 0);
  EXPECT_EQ(values_of(checkpoint.tensor("scalar")), std::vector<float>{7});
  EXPECT_EQ(checkpoint.tensor("nothing").sizes(), (std::vector<int64_t>{3, 0}));
}

TEST(Checkpoint, NamesTheFileAndTheTensorItDoesNotHave) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", file_with("w", {1}));
  const auto checkpoint = Checkpoint::open(path);
  try {
    checkpoint.tensor("v");
    ADD_FAILURE() << "gave a tensor";
  } catch (const std::runtime_error& error) {
    testing::expect_message(error.what(), path.string(), "has no tensor 'v'");
  }
  EXPECT_THROW(checkpoint.file_of("v"), std::runtime_error);
}

// Two shards, written in the other order than their names sort.
class ShardedCheckpoint : public ::testing::Test {
 protected:
  ShardedCheckpoint() {
    directory_.write("b.bin", file_with("second", {2}));
    directory_.write("a.bin", file_with("first", {1}));
  }
  void write_index(std::string_view json) { directory_.write(kIndex, json); }
  void expect_refused(std::string_view file, std::string_view expected) const {
    testing::expect_message(message_of(directory_.path()), (directory_.path() / file).string(),
                            expected);
  }
  const TemporaryDirectory directory_;
};

constexpr auto kBothShards = R"({"metadata": {"total_size": 8, "deep": [{"x": [1.5, null, true]}]},
                                 "weight_map": {"second": "b.bin", "first": "a.bin"}})";

TEST_F(ShardedCheckpoint, GivesTheTensorsOfAllShardsInTheOrderOfTheirNames) {
  write_index(kBothShards);
  const auto checkpoint = Checkpoint::open(directory_.path());
  ASSERT_EQ(checkpoint.entries().size(), 2U);
  EXPECT_EQ(checkpoint.entries()[0].name, "first");
  EXPECT_EQ(values_of(checkpoint.tensor("second")), std::vector<float>{2});
  EXPECT_EQ(checkpoint.file_of("second"), (directory_.path() / "b.bin").string());
}

// The reference loads whole shards: model.load_state_dict(torch.load(shard)).
TEST_F(ShardedCheckpoint, GivesTensorsThatTheIndexDoesNotName) {
  const std::string code =
      op::dict({op::text("first"), op::tensor(), op::text("extra"), op::tensor()});
  directory_.write("a.bin", torch_file(pickle_of(code), {floats({1, 2, 3})}));
  write_index(kBothShards);
  EXPECT_TRUE(Checkpoint::open(directory_.path()).contains("extra"));
}

// As in the cache of huggingface_hub.
TEST_F(ShardedCheckpoint, FollowsSymlinksToShards) {
  const TemporaryDirectory blobs;
  const auto blob = blobs.write("c", file_with("first", {5}));
  std::filesystem::remove(directory_.path() / "a.bin");
  std::filesystem::create_symlink(blob, directory_.path() / "a.bin");
  write_index(kBothShards);
  EXPECT_EQ(values_of(Checkpoint::open(directory_.path()).tensor("first")), std::vector<float>{5});
}

TEST_F(ShardedCheckpoint, RefusesTheSameTensorInTwoShards) {
  directory_.write("b.bin", file_with("first", {2}));
  write_index(R"({"weight_map": {"second": "b.bin", "first": "a.bin"}})");
  expect_refused("b.bin", "has a tensor 'first', and so has");
}

TEST_F(ShardedCheckpoint, RefusesAnIndexThatNamesATensorNoShardHas) {
  write_index(R"({"weight_map": {"third": "b.bin", "first": "a.bin"}})");
  expect_refused("b.bin", "has no tensor 'third', but pytorch_model.bin.index.json says so");
}

TEST_F(ShardedCheckpoint, RefusesAnIndexThatNamesTheWrongShard) {
  write_index(R"({"weight_map": {"second": "a.bin", "first": "b.bin"}})");
  expect_refused("b.bin", "has no tensor 'first'");
}

TEST_F(ShardedCheckpoint, ThrowsFileNotFoundNamingTheMissingShard) {
  write_index(R"({"weight_map": {"second": "c.bin", "first": "a.bin"}})");
  EXPECT_THROW(Checkpoint::open(directory_.path()), FileNotFound);
  expect_refused("c.bin", "there is no such file, but pytorch_model.bin.index.json names it");
}

TEST_F(ShardedCheckpoint, NamesTheShardThatIsDamaged) {
  directory_.write("b.bin", "PK\3\4");
  write_index(kBothShards);
  expect_refused("b.bin", "the file is truncated");
}

TEST_F(ShardedCheckpoint, RefusesAShardThatIsADirectory) {
  std::filesystem::create_directory(directory_.path() / "folder");
  write_index(R"({"weight_map": {"second": "folder"}})");
  expect_refused("folder", "is a directory, not a file");
}

TEST_F(ShardedCheckpoint, RefusesAnEmptyIndex) {
  write_index("");
  expect_refused(kIndex, "is empty (0 bytes)");
}

struct BadIndex {
  std::string name;
  std::string json;
  std::string expected;
};

std::ostream& operator<<(std::ostream& out, const BadIndex& row) { return out << row.name; }

std::string shard_named(const std::string& json_text) {
  return R"({"weight_map": {"w": ")" + json_text + "\"}}";
}

std::vector<BadIndex> bad_indices() {
  const std::string outside = "is not the name of a file beside it";
  return {
      {"NotJson", "PK\3\4", "it is not JSON (at byte 1)"},
      {"CutShort", R"({"weight_map": {"w": "a.bi)", "it is not JSON"},
      {"BytesAfterIt", R"({"weight_map": {"w": "a.bin"}} x)", "it is not JSON"},
      {"NotUtf8", shard_named("\xff"), "it is not JSON"},
      {"TopIsAList", "[]", "it is an array, not an object"},
      {"TopIsAString", "\"weight_map\"", "it is a string, not an object"},
      {"TopIsNull", "null", "it is null, not an object"},
      {"TopIsANumber", "1e999", "it is"},
      {"WeightMapMissing", R"({"metadata": {"weight_map": {"w": "a.bin"}}})",
       "has no \"weight_map\""},
      {"WeightMapEmpty", R"({"weight_map": {}})", "\"weight_map\" is empty"},
      {"WeightMapIsAList", R"({"weight_map": ["a.bin"]})",
       "\"weight_map\" is an array, not an object"},
      {"WeightMapIsAString", R"({"weight_map": "a.bin"})", "\"weight_map\" is a string"},
      {"WeightMapIsNull", R"({"weight_map": null})", "\"weight_map\" is null"},
      {"WeightMapTwice", R"({"weight_map": {"w": "a.bin"}, "weight_map": {"w": "a.bin"}})", "two"},
      {"ShardIsANumber", R"({"weight_map": {"w": 1}})", "gives a number for tensor 'w'"},
      {"ShardIsAnObject", R"({"weight_map": {"w": {"x": "a.bin"}}})",
       "gives an object for tensor 'w'"},
      {"ShardIsAList", R"({"weight_map": {"w": ["a.bin"]}})", "gives an array for tensor 'w'"},
      {"ShardIsTrue", R"({"weight_map": {"w": true}})", "gives a boolean for tensor 'w'"},
      {"ShardsDisagree", R"({"weight_map": {"w": "a.bin", "w": "b.bin"}})",
       "both in 'a.bin' and in 'b.bin'"},
      {"ShardAbove", shard_named("../x"), "tensor 'w' is in '../x', which " + outside},
      {"ShardIsAbsolute", shard_named("/etc/passwd"), "'/etc/passwd', which " + outside},
      {"ShardInAFolder", shard_named("sub/a.bin"), outside},
      {"ShardWithABackslash", shard_named("..\\\\x"), outside},
      {"ShardIsDot", shard_named("."), outside},
      {"ShardIsDotDot", shard_named(".."), outside},
      {"ShardIsEmpty", shard_named(""), outside},
      {"ShardWithANul", shard_named("a.bin\\u0000.png"), "'a.bin\\x00.png', which " + outside},
      {"ShardThatDrivesATerminal", shard_named("\\u001b[2J\\n"), "'\\x1b[2J\\x0a', which"},
      {"DeepLists", std::string(1'000'000, '['), "it is an array, not an object"},
      {"DeepListsInside", R"({"metadata": )" + std::string(1'000'000, '['),
       "nested more than 64 deep"},
      {"DeepObjects",
       [] {
         std::string json;
         for (int i = 0; i < 100'000; ++i) json += "{\"x\":";
         return json;
       }(),
       "nested more than 64 deep"},
      {"LongText", shard_named(std::string(5000, '/')), "'" + std::string(100, '/') + "...'"},
      {"TooLarge", std::string((size_t{64} << 20) + 1, ' '),
       "it has 67108865 bytes, more than 67108864"},
  };
}

class BadShardIndex : public ShardedCheckpoint, public ::testing::WithParamInterface<BadIndex> {};

TEST_P(BadShardIndex, IsRefusedInOneLineThatNamesTheFile) {
  write_index(GetParam().json);
  expect_refused(kIndex, GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Index,
                         BadShardIndex,
                         ::testing::ValuesIn(bad_indices()),
                         [](const ::testing::TestParamInfo<BadIndex>& row) {
                           return row.param.name;
                         });

TEST(Checkpoint, ThrowsFileNotFoundWhenThereIsNothing) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "model.ckpt";
  EXPECT_THROW(Checkpoint::open(path), FileNotFound);
  testing::expect_message(message_of(path), path.string(), "there is no such file");
}

TEST(Checkpoint, SaysWhatADirectoryWithoutAnIndexHolds) {
  const TemporaryDirectory directory;
  const std::string start = directory.path().string() + ": ";
  testing::expect_message(message_of(directory.path()), start,
                          "it holds nothing: give a file of weights");
  directory.write("bell\x07", "x");
  testing::expect_message(message_of(directory.path()), start,
                          "is a directory without model.safetensors, pytorch_model.bin or their "
                          "index; it holds bell\\x07: give a file of weights");
  directory.write("b.gguf", "GGUF");
  directory.write("model.ckpt", file_with("w", {1}));
  testing::expect_message(message_of(directory.path()), start,
                          "index: give the file you mean, of b.gguf, model.ckpt");
}

TEST(Checkpoint, ListsOnlyTheFirstFilesOfADirectory) {
  const TemporaryDirectory directory;
  for (int i = 0; i < 50; ++i) directory.write("file" + std::to_string(i), "x");
  testing::expect_message(message_of(directory.path()), directory.path().string(),
                          "file17, ...: give");
}

TEST(Checkpoint, SaysThatADirectoryHasShardsWithoutTheirIndex) {
  const TemporaryDirectory directory;
  directory.write("model-00001-of-00002.safetensors", "x");
  testing::expect_message(message_of(directory.path()), directory.path().string() + ": ",
                          "has shards (model-00001-of-00002.safetensors), but not their index: "
                          "download model.safetensors.index.json too");
}

TEST(Checkpoint, SaysThatAnAdapterIsNoModel) {
  const TemporaryDirectory directory;
  const auto file = directory.write(
      "adapter_model.bin",
      file_with("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", {1}));
  testing::expect_message(message_of(file), file.string() + ": ",
                          "is a LoRA adapter, not a model: merge it into its base model");
  testing::expect_message(message_of(directory.path()), directory.path().string() + ": ",
                          "is an adapter, such as LoRA, without a model: merge it");
}

TEST(Checkpoint, NamesTheSnapshotInADownloadCache) {
  const TemporaryDirectory directory;
  const auto model = directory.path() / "models--google--gemma";
  const auto snapshot = model / "snapshots" / "0123abc";
  std::filesystem::create_directories(snapshot);
  testing::expect_message(
      message_of(model), model.string() + ": ",
      "is a folder of Hugging Face's download cache: give the model in it, " + snapshot.string());
  testing::expect_message(message_of(directory.path()), directory.path().string() + ": ",
                          "is Hugging Face's download cache: give a folder of snapshots/ in it, "
                          "as of " +
                              (model / "snapshots").string());
  std::filesystem::create_directories(model / "snapshots" / "other");
  testing::expect_message(message_of(model), model.string() + ": ",
                          "give the model in it, one of snapshots/: 0123abc, other");
}

TEST(Checkpoint, RefusesAFileThatIsNotACheckpoint) {
  const TemporaryDirectory directory;
  const auto path = directory.write("tokenizer.model", "\n\x0e\n\x05<pad>");
  testing::expect_message(message_of(path), path.string() + ": ", "torch.save did not write it");
}

TEST(Checkpoint, RefusesAnEmptyFile) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", "");
  testing::expect_message(message_of(path), path.string() + ": ", "is empty");
}

}  // namespace
}  // namespace gemma
