#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/torch_archive.h>

namespace gemma {
namespace {

namespace op = testing::op;
using c10::ScalarType;
using testing::BadFile;
using testing::floats;
using testing::pickle_of;
using testing::torch_file;
using Sizes = std::vector<int64_t>;

std::vector<TensorEntry> read(const std::string& file) {
  return read_torch_archive(testing::as_bytes(file), "model.ckpt").tensors;
}

// A file whose dict holds `tensor` as 'w', over one record.
std::string file_of(const op::TensorSpec& tensor, const std::string& record) {
  return torch_file(pickle_of(op::dict({op::text("w"), op::tensor(tensor)})), {record});
}

std::vector<std::string> names_in(const std::string& file) {
  std::vector<std::string> names;
  for (const TensorEntry& entry : read(file)) names.push_back(entry.name);
  return names;
}

TEST(TorchArchive, ReadsATensorAndWhereItsBytesAre) {
  const std::string file = testing::small_torch_file();
  const auto entries = read(file);
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].name, "w");
  EXPECT_EQ(entries[0].dtype, ScalarType::Float);
  EXPECT_EQ(entries[0].sizes, Sizes{3});
  EXPECT_EQ(entries[0].strides, Sizes{1});
  EXPECT_EQ(entries[0].nbytes, 12U);
  EXPECT_EQ(file.substr(entries[0].offset, 12), floats({1, 2, 3}));
}

TEST(TorchArchive, ReadsTheDictUnderModelStateDict) {
  const std::string inner =
      op::ordered_dict({op::text("a"), op::tensor(), op::text("b"), op::tensor()});
  const std::string outer =
      op::dict({op::text("epoch"), op::integer(7), op::text("model_state_dict"), inner,
                op::text("optimizer"), op::dict({op::integer(0), "]"})});
  EXPECT_EQ(names_in(torch_file(pickle_of(outer), {floats({1, 2, 3})})),
            (std::vector<std::string>{"a", "b"}));
}

// The form {'model_state_dict': ...} alone takes: one entry is written with SETITEM, not SETITEMS.
TEST(TorchArchive, ReadsADictOfOneEntry) {
  const std::string code =
      "}" + op::text("model_state_dict") + "}" + op::text("w") + op::tensor() + "ss";
  EXPECT_EQ(names_in(torch_file(pickle_of(code), {floats({1, 2, 3})})),
            std::vector<std::string>{"w"});
}

TEST(TorchArchive, ReadsTheDictOfLightning) {
  const auto w = op::dict({op::text("w"), op::tensor()});
  const auto v = op::dict({op::text("v"), op::tensor()});
  const auto names = [](const std::string& code) {
    return names_in(torch_file(pickle_of(code), {floats({1, 2, 3})}));
  };
  EXPECT_EQ(names(op::dict({op::text("epoch"), op::integer(3), op::text("state_dict"), w})),
            std::vector<std::string>{"w"});
  EXPECT_EQ(names(op::dict({op::text("state_dict"), v, op::text("model_state_dict"), w})),
            std::vector<std::string>{"w"});
}

// Of 6 bytes as uint16: elements are counted in the tensor's dtype, not in the storage's.
TEST(TorchArchive, CountsTheElementsOfAStorageOfBytes) {
  const auto file_of_size = [](int64_t size) {
    const std::string tensor =
        op::call(op::global("torch._utils", "_rebuild_tensor_v3"),
                 op::tuple({op::storage({.numel = 6, .storage = "UntypedStorage"}), op::integer(0),
                            op::numbers({size}), op::numbers({1}), op::boolean(false),
                            op::ordered_dict({}), op::global("torch", "uint16")}));
    return torch_file(pickle_of(op::dict({op::text("w"), tensor})), {"abcdef"});
  };
  const auto entries = read(file_of_size(3));
  EXPECT_EQ(entries.at(0).dtype, ScalarType::UInt16);
  EXPECT_EQ(entries.at(0).nbytes, 6U);
  testing::expect_refused({"", file_of_size(4), "reaches past the 3 elements of its storage"});
}

TEST(TorchArchive, PassesOverWhatIsNoTensor) {
  const std::string code =
      op::dict({op::text("set"), op::call(op::global("builtins", "set"), op::tuple({"]"})),
                op::text("list"), "](" + op::integer(1) + "e", op::text("dict"),
                op::dict({op::text("a"), op::none()}), op::integer(5), op::none(),
                op::numbers({1, 2}), op::none(), op::text(std::string(5000, 'k')), op::none(),
                op::text("w"), op::tensor(), op::text("dtype"), op::global("torch", "float32")});
  EXPECT_EQ(names_in(torch_file(pickle_of(code), {floats({1, 2, 3})})),
            std::vector<std::string>{"w"});
}

TEST(TorchArchive, LeavesOutScalarsAndStrings) {
  const std::string code =
      op::dict({op::text("none"), op::none(), op::text("bool"), op::boolean(true), op::text("int"),
                op::integer(1), op::text("w"), op::tensor(), op::text("float"), op::real(1),
                op::text("str"), op::text("x")});
  EXPECT_EQ(names_in(torch_file(pickle_of(code), {floats({1, 2, 3})})),
            std::vector<std::string>{"w"});
}

TEST(TorchArchive, FindsAConfigOnlyWhereItIsATextAtTheTop) {
  const auto config_in = [](const std::string& dict) {
    const auto file = torch_file(pickle_of(dict), {floats({1, 2, 3})});
    const auto config = read_torch_archive(testing::as_bytes(file), "model.ckpt").config;
    return config ? std::string(*config) : "none";  // A view of the file.
  };
  const auto key = op::text("config.json");
  const auto w = op::dict({op::text("w"), op::tensor()});
  const auto state = op::text("model_state_dict");
  EXPECT_EQ(config_in(op::dict({state, w, key, op::text("{}")})), "{}");
  EXPECT_EQ(config_in(op::dict({op::text("w"), op::tensor(), key, op::text("{}")})), "{}");
  EXPECT_EQ(config_in(op::dict({state, w, key, op::integer(1)})), "none");
  EXPECT_EQ(config_in(op::dict({state, w, key, op::dict({})})), "none");
  const auto inner = op::dict({op::text("w"), op::tensor(), key, op::text("{}")});
  EXPECT_EQ(config_in(op::dict({state, inner})), "none");
}

TEST(TorchArchive, KeepsTheFirstPlaceAndTheLastValueOfEqualNames) {
  const std::string code = op::dict({op::text("a"), op::tensor(), op::text("b"), op::tensor(),
                                     op::text("a"), op::tensor({.sizes = {2}})});
  const auto entries = read(torch_file(pickle_of(code), {floats({1, 2, 3})}));
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].sizes, Sizes{2});
}

TEST(TorchArchive, KnowsTheSizeOfEveryDtype) {
  struct Row {
    std::string storage;
    ScalarType dtype;
    size_t itemsize;
  };
  for (const Row& row :
       {Row{"FloatStorage", ScalarType::Float, 4}, Row{"DoubleStorage", ScalarType::Double, 8},
        Row{"HalfStorage", ScalarType::Half, 2}, Row{"BFloat16Storage", ScalarType::BFloat16, 2},
        Row{"CharStorage", ScalarType::Char, 1}, Row{"ByteStorage", ScalarType::Byte, 1},
        Row{"ShortStorage", ScalarType::Short, 2}, Row{"IntStorage", ScalarType::Int, 4},
        Row{"LongStorage", ScalarType::Long, 8}, Row{"BoolStorage", ScalarType::Bool, 1},
        Row{"ComplexFloatStorage", ScalarType::ComplexFloat, 8},
        Row{"ComplexDoubleStorage", ScalarType::ComplexDouble, 16}}) {
    SCOPED_TRACE(row.storage);
    const auto entries =
        read(file_of({.storage = row.storage}, std::string(3 * row.itemsize, 'x')));
    EXPECT_EQ(entries.at(0).dtype, row.dtype);
    EXPECT_EQ(entries.at(0).nbytes, 3 * row.itemsize);
  }
}

// torch.arange(24.).view(4, 6): [:, 2], .t(), [1:3, 2:5:2], and arange(3.).expand(5, 3).
TEST(TorchArchive, FindsTheBytesOfViews) {
  struct Row {
    Sizes sizes, strides;
    int64_t offset;
    uint64_t first, elements;
  };
  for (const Row& row : {Row{{4}, {6}, 2, 2, 19}, Row{{6, 4}, {1, 6}, 0, 0, 24},
                         Row{{2, 2}, {6, 2}, 8, 8, 9}, Row{{5, 3}, {0, 1}, 0, 0, 3}}) {
    const std::string file =
        file_of({.sizes = row.sizes, .strides = row.strides, .offset = row.offset, .numel = 24},
                std::string(96, 'x'));
    const TensorEntry entry = read(file).at(0);
    EXPECT_EQ(entry.offset, file.find(std::string(96, 'x')) + 4 * row.first);
    EXPECT_EQ(entry.nbytes, 4 * row.elements);
  }
}

TEST(TorchArchive, LetsTensorsShareAStorage) {
  const std::string code = op::dict(
      {op::text("a"), op::tensor(), op::text("b"), op::tensor({.sizes = {2}, .offset = 1})});
  const auto entries = read(torch_file(pickle_of(code), {floats({1, 2, 3})}));
  EXPECT_EQ(entries.at(1).offset, entries.at(0).offset + 4);
}

TEST(TorchArchive, ReadsTensorsWithoutDimensionsAndWithoutElements) {
  EXPECT_EQ(read(file_of({.sizes = {}, .strides = {}, .numel = 1}, floats({1}))).at(0).nbytes, 4U);
  EXPECT_EQ(read(file_of({.sizes = {0}, .numel = 0}, "")).at(0).nbytes, 0U);
  EXPECT_EQ(read(file_of({.sizes = {3, 0, 2}, .strides = {2, 2, 1}, .numel = 0}, "")).at(0).nbytes,
            0U);
  // torch.arange(3.)[3:]
  EXPECT_EQ(read(file_of({.sizes = {0}, .offset = 3}, floats({1, 2, 3}))).at(0).nbytes, 0U);
}

TEST(TorchArchive, AllowsRecordsItDoesNotNeed) {
  auto records = testing::torch_records(pickle_of(op::dict({op::text("w"), op::tensor()})),
                                        {floats({1, 2, 3}), "unused"});
  records.push_back({"model/.data/serialization_id", "123"});
  EXPECT_EQ(read(write_zip(records).bytes).size(), 1U);
}

TEST(TorchArchive, DoesNotNeedByteorderAndVersion) {
  const auto records = testing::torch_records(pickle_of(op::dict({op::text("w"), op::tensor()})),
                                              {floats({1, 2, 3})});
  EXPECT_EQ(read(testing::write_zip({records[0], records[2]}).bytes).size(), 1U);
}

TEST(TorchArchive, ReadsZip64) {
  const std::string file = torch_file(pickle_of(op::dict({op::text("w"), op::tensor()})),
                                      {floats({1, 2, 3})}, {.zip64 = true});
  EXPECT_EQ(read(file).size(), 1U);
}

std::string little_file_with(const std::string& start) { return start + std::string(300, '\1'); }

std::string tar_file() { return std::string(257, '\0') + "ustar" + std::string(250, '\0'); }

std::vector<BadFile> other_formats() {
  const std::string legacy =
      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
  return {
      {"Empty", "", "is empty (0 bytes)"},
      {"OneByte", "P", "it begins with 'P', not 'PK'"},
      {"TwoBytes", "PK", "the file is truncated"},
      {"Zeros", std::string(1000, '\0'), "it begins with '\\x00\\x00\\x00\\x00'"},
      {"Legacy", legacy, "older than 1.6: load it in Python and write it again with torch.save("},
      {"Tar", tar_file(), "_use_new_zipfile_serialization=True) of PyTorch 1.6 or newer"},
      {"BarePickle", pickle_of(op::none()), "is a bare pickle"},
      {"SafetensorsCutShort", testing::raw<uint64_t>(20) + "{\"w\"", "torch.save did not write it"},
      {"Hdf5", little_file_with("\x89HDF\r\n"), "is an HDF5 file"},
      {"Gzip", little_file_with("\x1f\x8b"), "is compressed with gzip"},
      {"GitLfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
       "run `git lfs pull`"},
      {"WebPage", "<!DOCTYPE html><html>", "is a web page, not the weights: the download failed"},
      {"WebPageInUpperCase", "\xef\xbb\xbf \r\n<HTML lang='en'>", "is a web page"},
      {"Json", "{\"error\": \"not found\"}",
       "is JSON, not the weights: give the directory that it is in"},
      {"SomeText", "hello\n\x1b[2J", "it begins with 'hell', not 'PK'"},
      {"ZipOfSomethingElse", testing::write_zip({{"word/document.xml", "<x/>"}}).bytes,
       "a zip archive without data.pkl"},
      {"ZipWithoutEntries", testing::write_zip({}).bytes, "a zip archive without data.pkl"},
  };
}

std::vector<BadFile> bad_archives() {
  const std::string pickle = pickle_of(op::dict({op::text("w"), op::tensor()}));
  auto records = testing::torch_records(pickle, {floats({1, 2, 3})});
  const auto with = [&](const testing::ZipRecord& extra) {
    auto more = records;
    more.push_back(extra);
    return testing::write_zip(more).bytes;
  };
  const auto with_byteorder = [&](const std::string& order) {
    auto changed = records;
    changed[1].data = order;
    return testing::write_zip(changed).bytes;
  };
  return {
      {"DataPklMissing", testing::write_zip({records[1], records[2]}).bytes, "without data.pkl"},
      {"DataPklAtTheTop", testing::write_zip({{"data.pkl", pickle}}).bytes, "without data.pkl"},
      {"TwoDataPkl", with({"other/data.pkl", pickle}), "two data.pkl, in 'model/' and 'other/'"},
      {"BigEndian", with_byteorder("big"), "its byte order is 'big', not 'little'"},
      {"ByteorderEmpty", with_byteorder(""), "its byte order is '', not 'little'"},
      {"TorchScriptByItsConstants", with({"model/constants.pkl", pickle}),
       "is a TorchScript archive"},
      {"TorchScriptByItsCode", with({"model/code/__torch__.py", "x"}),
       "torch.jit.load(...).state_dict()"},
      {"RecordMissing", testing::write_zip({records[0]}).bytes,
       "tensor 'w' needs record 'data/0', which the archive does not have"},
  };
}

std::string endless_names() {
  std::string code = "}" + op::text("first") + op::tensor() + std::string("q\0s", 3);
  for (int i = 0; i < 1 << 18; ++i) {
    code += op::text(std::to_string(i)) + std::string("h\0s", 3);
  }
  return code;
}

std::vector<BadFile> bad_contents() {
  const auto with = [](const std::string& value) {
    return torch_file(pickle_of(value), {floats({1, 2, 3})});
  };
  const auto w_is = [&](const std::string& value) {
    return with(op::dict({op::text("w"), value}));
  };
  const std::string tensors = op::dict({op::text("x"), op::tensor()});
  return {
      {"NameTooLong", with(op::dict({op::text(std::string(1025, 'n')), op::tensor()})),
       "a tensor has a name of 1025 bytes: 'nnn"},
      {"TopIsAList", with("]"), "it holds a list, not a dict of tensors"},
      {"TopIsATensor", with(op::tensor()), "it holds a tensor, not a dict of tensors"},
      {"TopIsNone", with(op::none()), "it holds a NoneType, not a dict of tensors"},
      {"TopIsAStorage", with(op::storage({})), "it holds a storage, not"},
      {"TopIsAFunction", with(op::global("collections", "OrderedDict")),
       "it holds a function, not"},
      {"EmptyDict", with("}"), "it holds no tensors"},
      {"NothingButScalars", w_is(op::integer(3)), "it holds no tensors, but 'w': save"},
      {"Keys",
       with(op::dict({op::text("a"), op::none(), op::text("b"), op::none(), op::text("c"),
                      op::none(), op::text("d"), op::none()})),
       "it holds no tensors, but 'a', 'b', 'c': save"},
      {"Optimizer",
       with(op::dict({op::text("state"), op::dict({op::integer(0), tensors}),
                      op::text("param_groups"), "]"})),
       "it is the state of an optimizer, not a model's weights: give the file of those"},
      {"ModelStateDictIsEmpty", with(op::dict({op::text("model_state_dict"), "}"})),
       "it holds no tensors"},
      {"ModelStateDictIsAList", with(op::dict({op::text("model_state_dict"), "]"})),
       "its 'model_state_dict' is a list"},
      {"ModelStateDictIsATensor", with(op::dict({op::text("model_state_dict"), op::tensor()})),
       "its 'model_state_dict' is a tensor"},
      {"NestedDict", w_is(op::dict({op::text("x"), op::tensor()})),
       "its 'w' is a dict of tensors, which is read only under the name 'model_state_dict'"},
      {"ListOfTensors", w_is("](" + op::tensor() + "e"), "its 'w' is a list of tensors"},
      {"SparseTensor", w_is(op::call(op::global("torch._utils", "_rebuild_sparse_tensor"), ")")),
       "its 'w' is a sparse tensor, which is not read: save it as a plain tensor of floats"},
      {"NumberAsName", with(op::dict({op::integer(5), op::tensor()})),
       "has a key of type int, not a name"},
      {"NameThatDrivesATerminal", with(op::dict({op::text("\x1b[2J\n"), tensors})),
       "its '\\x1b[2J\\x0a' is"},
      {"EndlessNames", with(endless_names()), "it has more than 262144 tensors"},
      {"LongName", with(op::dict({op::text(std::string(1000, 'n')), tensors})),
       "its '" + std::string(100, 'n') + "...' is"},
  };
}

std::vector<BadFile> bad_tensors() {
  const std::string data = floats({1, 2, 3});
  const int64_t huge = int64_t{1} << 62;
  return {
      {"RecordTooSmall", file_of({.sizes = {1152}, .numel = 1152}, std::string(24, 'x')),
       "tensor 'w' needs 4608 bytes but its record 'data/0' holds 24: the file is damaged"},
      {"RecordTooLarge", file_of({}, data + "x"),
       "needs 12 bytes but its record 'data/0' holds 13"},
      {"RecordOfAnotherDtype", file_of({.storage = "HalfStorage"}, data), "needs 6 bytes"},
      {"RecordNamedOutside", file_of({.key = "../version"}, data),
       "needs record 'data/../version'"},
      {"RecordNameThatDrivesATerminal", file_of({.key = "\x1b[2J"}, data), "'data/\\x1b[2J'"},
      {"RecordNameTooLong", file_of({.key = std::string(2000, 'k')}, data), "key has 2000 bytes"},
      {"StorageNegative", file_of({.numel = -3}, data), "tensor 'w': its storage size is -3"},
      {"StorageOverflows", file_of({.numel = huge}, data),
       "its storage size is 4611686018427387904"},
      // 2^62 * 4 is 0 in 64 bits.
      {"StorageOverflowsToNothing", file_of({.sizes = {1}, .numel = huge}, ""),
       "its storage size is"},
      {"SizeNegative", file_of({.sizes = {-1}}, data), "tensor 'w': its size is -1"},
      {"SizeHuge", file_of({.sizes = {INT64_MAX}}, data), "its size is 9223372036854775807"},
      {"StrideNegative", file_of({.strides = {-1}, .offset = 2}, data), "its stride is -1"},
      {"StrideHuge", file_of({.sizes = {1}, .strides = {huge}}, data), "its stride is"},
      {"OffsetNegative", file_of({.offset = -1}, data), "its offset is -1"},
      {"OffsetHuge", file_of({.offset = INT64_MAX}, data), "its offset is"},
      {"OffsetNegativeOfNothing", file_of({.sizes = {0}, .offset = -1}, data), "its offset is -1"},
      {"ReachesPastTheEnd", file_of({.sizes = {4}}, data),
       "reaches past the 3 elements of its storage"},
      {"ReachesPastTheEndByOffset", file_of({.offset = 1}, data), "reaches past the 3 elements"},
      {"ReachesPastTheEndByStride", file_of({.sizes = {2}, .strides = {3}}, data), "reaches past"},
      {"ReachesPastTheEndInTwo", file_of({.sizes = {2, 2}, .strides = {2, 1}}, data),
       "reaches past"},
      {"OneElementPastTheEnd", file_of({.sizes = {}, .strides = {}, .offset = 3}, data),
       "reaches past"},
      {"OneElementOfNothing", file_of({.sizes = {}, .strides = {}, .numel = 0}, ""),
       "reaches past"},
      // (2^33 - 1) * 2^31 + ... wraps to a small number.
      {"ReachWraps",
       file_of({.sizes = {int64_t{1} << 33, 2}, .strides = {int64_t{1} << 31, 1}}, data),
       "reaches past"},
      {"ElementsOverflow",
       file_of({.sizes = {int64_t{1} << 40, int64_t{1} << 40}, .strides = {0, 0}}, data),
       "has more than 2^48 elements"},
      {"ElementsOverflowBesideAZero",
       file_of({.sizes = {int64_t{1} << 40, 0, int64_t{1} << 40}, .strides = {0, 0, 0}}, data),
       "has more than 2^48 elements"},
      {"ReachOverflowsBesideAZero",
       file_of({.sizes = {int64_t{1} << 40, 0}, .strides = {int64_t{1} << 48, 1}}, data),
       "reaches past"},
  };
}

class BadArchive : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadArchive, IsRefusedInOneLineThatNamesTheFile) { testing::expect_refused(GetParam()); }

std::string name_of(const ::testing::TestParamInfo<BadFile>& row) { return row.param.name; }

INSTANTIATE_TEST_SUITE_P(Formats, BadArchive, ::testing::ValuesIn(other_formats()), name_of);
INSTANTIATE_TEST_SUITE_P(Archives, BadArchive, ::testing::ValuesIn(bad_archives()), name_of);
INSTANTIATE_TEST_SUITE_P(Contents, BadArchive, ::testing::ValuesIn(bad_contents()), name_of);
INSTANTIATE_TEST_SUITE_P(Tensors, BadArchive, ::testing::ValuesIn(bad_tensors()), name_of);

TEST(TorchArchive, RefusesEveryTruncationOfAFile) {
  const std::string file = testing::small_torch_file();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THROW(read(file.substr(0, size)), std::runtime_error) << size;
  }
}

// Whatever one wrong byte does, it is either noticed or harmless: what is read stays in the file.
TEST(TorchArchive, StaysInTheFileWhateverByteIsWrong) {
  const std::string file = testing::small_torch_file();
  for (size_t at = 0; at < file.size(); ++at) {
    for (const char byte : {'\0', '\1', '\x7f', '\xff'}) {
      try {
        for (const TensorEntry& entry : read(testing::patched(file, at, byte))) {
          ASSERT_LE(entry.offset + entry.nbytes, file.size()) << at;
        }
      } catch (const std::runtime_error& error) {
        testing::expect_message(error.what(), "model.ckpt: ", "");
      }
    }
  }
}

}  // namespace
}  // namespace gemma
