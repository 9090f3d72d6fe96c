#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/pickle.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::pickle_of;

// Reads the pickle of one value and hands it to `check`, while what it points at lives.
template <typename T, typename Check>
void read_as(const std::string& value, Check check) {
  const std::string bytes = pickle_of(value);
  const pickle::Pickle pickle = pickle::read(testing::as_bytes(bytes));
  ASSERT_TRUE(std::holds_alternative<T>(pickle.root)) << pickle::type_name(pickle.root);
  check(std::get<T>(pickle.root));
}

template <typename T>
void expect_scalar(const std::string& value, T expected) {
  read_as<T>(value, [&](const T& got) { EXPECT_EQ(got, expected); });
}

TEST(Pickle, ReadsEachKindOfScalar) {
  expect_scalar(op::none(), std::monostate{});
  expect_scalar(op::boolean(true), true);
  expect_scalar(op::boolean(false), false);
  expect_scalar(op::real(-0.5), -0.5);
  expect_scalar<std::string_view>(op::text("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  expect_scalar<std::string_view>("\x8c\x02hi", "hi");
}

TEST(Pickle, ReadsIntegersOfEveryWidth) {
  for (const int64_t value : {int64_t{0}, int64_t{255}, int64_t{256}, int64_t{65536}, int64_t{-1},
                              int64_t{-2147483648}, int64_t{1} << 40, INT64_MAX, INT64_MIN}) {
    expect_scalar(op::integer(value), value);
  }
}

// pickle.dumps(2**40, 2) and so on: LONG1 has as many bytes as the value needs.
TEST(Pickle, ReadsLongsOfEveryLength) {
  using namespace std::string_literals;
  expect_scalar("\x8a\x00"s, int64_t{0});
  expect_scalar("\x8a\x01\xff"s, int64_t{-1});
  expect_scalar("\x8a\x05\xff\xff\xff\xff\x00"s, int64_t{4294967295});
  expect_scalar("\x8a\x06\x00\x00\x00\x00\x00\x01"s, int64_t{1} << 40);
}

TEST(Pickle, ReadsTuplesOfEveryForm) {
  const std::string two = op::integer(1) + op::integer(2);
  for (const auto& [code, size] : {std::pair<std::string, size_t>{")", 0},
                                   {op::integer(1) + "\x85", 1},
                                   {two + "\x86", 2},
                                   {two + op::integer(3) + "\x87", 3},
                                   {op::numbers({1, 2, 3, 4, 5}), 5}}) {
    read_as<const pickle::Tuple*>(code, [count = size](const pickle::Tuple* tuple) {
      ASSERT_EQ(tuple->items.size(), count);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(std::get<int64_t>(tuple->items[i]), static_cast<int64_t>(i + 1));
      }
    });
  }
}

TEST(Pickle, AppendsToLists) {
  const std::string code = "]" + op::integer(1) + "a(" + op::integer(2) + op::integer(3) + "e";
  read_as<pickle::List*>(code, [](const pickle::List* list) {
    ASSERT_EQ(list->items.size(), 3U);
    EXPECT_EQ(std::get<int64_t>(list->items[2]), 3);
  });
}

TEST(Pickle, FindsTheLastOfEqualKeys) {
  const std::string code = op::dict({op::text("a"), op::integer(1), op::integer(7), op::none()}) +
                           op::text("a") + op::integer(2) + "s";
  read_as<pickle::Dict*>(code, [](const pickle::Dict* dict) {
    EXPECT_EQ(dict->items.size(), 3U);
    ASSERT_NE(dict->find("a"), nullptr);
    EXPECT_EQ(std::get<int64_t>(*dict->find("a")), 2);
    EXPECT_EQ(dict->find("b"), nullptr);
  });
}

TEST(Pickle, SharesWhatTheMemoRepeats) {
  // x = [1]; [x, x], by BINPUT and BINGET, then by their long forms, then by MEMOIZE.
  const std::string zero = testing::raw<uint32_t>(0);
  for (const auto& [put, get] :
       {std::pair<std::string, std::string>{std::string("q\0", 2), std::string("h\0", 2)},
        {"r" + zero, "j" + zero},
        {"\x94", std::string("h\0", 2)}}) {
    std::string code = "](]";
    code.append(put).append(op::integer(1)).append("a").append(get).append("e");
    read_as<pickle::List*>(code, [](pickle::List* list) {
      ASSERT_EQ(list->items.size(), 2U);
      EXPECT_EQ(std::get<pickle::List*>(list->items[0]), std::get<pickle::List*>(list->items[1]));
    });
  }
}

TEST(Pickle, ReadsAListThatHoldsItself) {
  read_as<pickle::List*>(std::string("]q\0h\0a", 6), [](pickle::List* list) {
    EXPECT_EQ(std::get<pickle::List*>(list->items.at(0)), list);
  });
}

TEST(Pickle, IgnoresTheStateOfAnOrderedDict) {
  const std::string state = op::dict({op::text("_metadata"), op::ordered_dict({})});
  read_as<pickle::Dict*>(op::ordered_dict({op::text("a"), op::none()}) + state + "b",
                         [](const pickle::Dict* dict) {
                           EXPECT_TRUE(dict->is_ordered_dict);
                           EXPECT_EQ(dict->items.size(), 1U);
                         });
}

TEST(Pickle, ReadsATensor) {
  const std::string code = op::tensor({.sizes = {2, 3},
                                       .strides = {1, 2},
                                       .offset = 4,
                                       .key = "17",
                                       .numel = 10,
                                       .storage = "BFloat16Storage"});
  read_as<const pickle::Tensor*>(code, [](const pickle::Tensor* tensor) {
    EXPECT_EQ(tensor->storage->dtype, c10::ScalarType::BFloat16);
    EXPECT_EQ(tensor->storage->itemsize, 2);
    EXPECT_EQ(tensor->storage->key, "17");
    EXPECT_EQ(tensor->storage->numel, 10);
    EXPECT_EQ(tensor->offset, 4);
    EXPECT_EQ(std::get<int64_t>(tensor->sizes->items[1]), 3);
    EXPECT_EQ(std::get<int64_t>(tensor->strides->items[1]), 2);
  });
}

TEST(Pickle, ReadsAParameterAsItsTensor) {
  const std::string code =
      op::call(op::global("torch._utils", "_rebuild_parameter"),
               op::tuple({op::tensor(), op::boolean(true), op::ordered_dict({})}));
  read_as<const pickle::Tensor*>(
      code, [](const pickle::Tensor* tensor) { EXPECT_EQ(tensor->storage->numel, 3); });
}

TEST(Pickle, ReadsTensorsWithEmptyMetadata) {
  for (const std::string& metadata : {op::none(), op::dict({})}) {
    const std::string code =
        op::call(op::global("torch._utils", "_rebuild_tensor_v2"),
                 op::tuple({op::storage({}), op::integer(0), op::numbers({3}), op::numbers({1}),
                            op::boolean(false), op::ordered_dict({}), metadata}));
    read_as<const pickle::Tensor*>(code, [](const pickle::Tensor*) {});
  }
}

TEST(Pickle, GivesTensorsOfOneStorageTheSameStorage) {
  read_as<const pickle::Tuple*>(
      op::tuple({op::tensor(), op::tensor({.sizes = {2}})}), [](const pickle::Tuple* tuple) {
        EXPECT_EQ(std::get<const pickle::Tensor*>(tuple->items[0])->storage,
                  std::get<const pickle::Tensor*>(tuple->items[1])->storage);
      });
}

TEST(Pickle, ReadsProtocolFour) {
  // FRAME, SHORT_BINUNICODE, MEMOIZE, STACK_GLOBAL.
  const std::string code = "\x80\x04\x95" + testing::raw<uint64_t>(30) +
                           "\x8c\x0b"
                           "collections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94.";
  const pickle::Pickle pickle = pickle::read(testing::as_bytes(code));
  EXPECT_TRUE(std::get<pickle::Dict*>(pickle.root)->is_ordered_dict);
}

// A tree of values would overflow the stack when it is destroyed.
TEST(Pickle, SurvivesAMillionNestedTuples) {
  read_as<const pickle::Tuple*>(
      ")" + std::string(1'000'000, '\x85'),
      [](const pickle::Tuple* tuple) { EXPECT_EQ(tuple->items.size(), 1U); });
}

// Thirty lists, each ten times the previous one: as a tree, 10^30 values.
TEST(Pickle, DoesNotMultiplyRepeatedValues) {
  std::string code = std::string("(]q\0", 4);
  for (int i = 0; i < 30; ++i) {
    code += "](";
    for (int k = 0; k < 10; ++k) code += std::string("h") + static_cast<char>(i);
    code += std::string("eq") + static_cast<char>(i + 1);
  }
  const std::string bytes = pickle_of(code + "t");
  const pickle::Pickle pickle = pickle::read(testing::as_bytes(bytes));
  EXPECT_EQ(pickle.lists.size(), 31U);
  EXPECT_EQ(pickle.lists.back().items.size(), 10U);
}

// A value that is no weight, and what type_name calls it.
struct OpaqueValue {
  std::string name, code, type;
};

std::vector<OpaqueValue> opaque_values() {
  using namespace std::string_literals;
  const auto made = [](const char* module, const char* name, const std::string& arguments) {
    return op::call(op::global(module, name), arguments);
  };
  const std::string bytes = op::tuple({op::text("abc"), op::text("latin1")});
  const std::string list = op::tuple({"]"});
  const std::string hooks = op::ordered_dict({});
  const std::string view =
      op::storage({}) + op::integer(0) + op::numbers({3}) + op::numbers({1}) + op::boolean(false);
  const std::string nine = op::numbers({1, 1, 1, 1, 1, 1, 1, 1, 1});
  return {
      {"Bytes", made("_codecs", "encode", bytes), "bytes"},
      {"BytesOfProtocol3",
       "C\x02"
       "ab",
       "bytes"},
      {"LongBytesOfProtocol3", "B" + testing::raw(uint32_t{2}) + "ab", "bytes"},
      {"BytesOfProtocol4", "\x8e" + testing::raw(uint64_t{2}) + "ab", "bytes"},
      {"ByteArray", made("__builtin__", "bytearray", bytes), "bytearray"},
      {"ByteArrayOfProtocol5", "\x96" + testing::raw(uint64_t{2}) + "ab", "bytearray"},
      {"Set", made("__builtin__", "set", list), "set"},
      {"SetOfProtocol4", "\x8f(" + op::integer(1) + op::none() + "\x90", "set"},
      {"FrozenSet", made("builtins", "frozenset", list), "frozenset"},
      {"FrozenSetOfProtocol4", "(" + op::integer(1) + "\x91", "frozenset"},
      {"Complex", made("builtins", "complex", op::tuple({op::real(1), op::real(2)})), "complex"},
      {"Counter", made("collections", "Counter", op::tuple({op::dict({})})), "collections.Counter"},
      {"DefaultDict",
       made("collections", "defaultdict", op::tuple({op::global("builtins", "list")})) + "(" +
           op::text("a") + op::none() + "u",
       "collections.defaultdict"},
      {"Device", made("torch", "device", op::tuple({op::text("cpu")})), "torch.device"},
      {"Layout", made("torch.serialization", "_get_layout", op::tuple({op::text("strided")})),
       "torch.layout"},
      {"LargeInteger", "\x8a\x09" + std::string(9, 'x'), "int"},
      {"LargeIntegerOfFourBytesOfLength", "\x8b" + testing::raw(uint32_t{9}) + std::string(9, 'x'),
       "int"},
      {"Surrogate", op::text("\xed\xa0\x80"), "str"},
      {"OrderedDictOfAList", made("collections", "OrderedDict", list),
       "collections.OrderedDict of a list"},
      {"Sparse", made("torch._utils", "_rebuild_sparse_tensor", ")"), "sparse tensor"},
      {"Quantized", made("torch._utils", "_rebuild_qtensor", ")"), "quantized tensor"},
      {"Nested", made("torch._utils", "_rebuild_nested_tensor", ")"), "nested tensor"},
      {"Meta", made("torch._utils", "_rebuild_meta_tensor_no_storage", ")"),
       "tensor without data (of device 'meta')"},
      {"ParameterOfASparseTensor",
       made("torch._utils", "_rebuild_parameter",
            op::tuple(
                {made("torch._utils", "_rebuild_sparse_tensor", ")"), op::boolean(true), hooks})),
       "sparse tensor"},
      {"Conjugated",
       made("torch._utils", "_rebuild_tensor_v2",
            op::tuple({view, hooks, op::dict({op::text("conj"), op::boolean(true)})})),
       "conjugated or negated tensor"},
      {"NineDimensions",
       made("torch._utils", "_rebuild_tensor_v2",
            op::tuple({op::storage({}), op::integer(0), nine, nine, op::boolean(false), hooks})),
       "tensor of more than 8 dimensions"},
      {"HalfBytes",
       made("torch._utils", "_rebuild_tensor_v3",
            op::tuple({view, hooks, op::global("torch", "float4_e2m1fn_x2")})),
       "tensor of a dtype of less than a byte"},
      {"Attributes", made("torch", "device", ")") + op::tuple({op::none()}) + "b", "torch.device"},
  };
}

class OpaquePickle : public ::testing::TestWithParam<OpaqueValue> {};

TEST_P(OpaquePickle, IsReadAsSomethingThatIsNoWeight) {
  read_as<const pickle::Opaque*>(GetParam().code, [](const pickle::Opaque* opaque) {
    EXPECT_EQ(opaque->type, GetParam().type);
    EXPECT_EQ(opaque->is_tensor, GetParam().type.find("tensor") != std::string::npos);
  });
}

INSTANTIATE_TEST_SUITE_P(Values,
                         OpaquePickle,
                         ::testing::ValuesIn(opaque_values()),
                         [](const auto& row) { return row.param.name; });

TEST(Pickle, ReadsASizeAsItsTuple) {
  read_as<const pickle::Tuple*>(
      op::call(op::global("torch", "Size"), op::tuple({op::numbers({1, 2})})),
      [](const pickle::Tuple* sizes) { EXPECT_EQ(sizes->items.size(), 2U); });
}

TEST(Pickle, ReadsADtypeAsAValue) {
  read_as<pickle::Global>(op::global("torch", "bfloat16"), [](const pickle::Global& dtype) {
    EXPECT_EQ(dtype.dtype, c10::ScalarType::BFloat16);
    EXPECT_EQ(pickle::type_name(dtype), "torch.dtype");
  });
}

TEST(Pickle, TakesKeysOfEveryKind) {
  const std::string long_key(5000, 'k');
  read_as<pickle::Dict*>(op::dict({op::numbers({1, 2}), op::none(), op::none(), op::none(),
                                   op::text(long_key), op::none(), op::real(1), op::none()}),
                         [](const pickle::Dict* dict) { EXPECT_EQ(dict->items.size(), 4U); });
}

// What torch.save writes for float8 and the like: a storage of bytes, and the dtype apart from it.
TEST(Pickle, ReadsATensorOfADtypeWithoutAStorageType) {
  const std::string code =
      op::call(op::global("torch._utils", "_rebuild_tensor_v3"),
               op::tuple({op::storage({.numel = 6, .storage = "UntypedStorage"}), op::integer(0),
                          op::numbers({3}), op::numbers({1}), op::boolean(false),
                          op::ordered_dict({}), op::global("torch", "uint16")}));
  read_as<const pickle::Tensor*>(code, [](const pickle::Tensor* tensor) {
    EXPECT_EQ(tensor->dtype, c10::ScalarType::UInt16);
    EXPECT_EQ(tensor->itemsize, 2);
    EXPECT_EQ(tensor->storage->numel, 6);
  });
}

// A tensor with Python attributes, a parameter with attributes or of Parameter.__new__, a tensor
// that comes from an accelerator, and the oldest form: each is the tensor.
TEST(Pickle, ReadsEveryFormOfATensor) {
  const std::string no = op::boolean(false), hooks = op::ordered_dict({});
  const std::string view = op::storage({}) + op::integer(0) + op::numbers({3}) + op::numbers({1});
  const std::string v2 = op::global("torch._utils", "_rebuild_tensor_v2");
  const auto utils = [](const char* name, const std::string& arguments) {
    return op::call(op::global("torch._utils", name), arguments);
  };
  for (const std::string& code :
       {op::call(op::global("torch._tensor", "_rebuild_from_type_v2"),
                 op::tuple({v2, op::global("torch", "Tensor"), op::tuple({view, no, hooks}),
                            op::dict({op::text("note"), op::text("x")})})),
        utils("_rebuild_parameter_with_state", op::tuple({op::tensor(), no, hooks, op::dict({})})),
        op::global("torch.nn.parameter", "Parameter") + op::tuple({op::tensor(), no}) + "\x81",
        utils("_rebuild_device_tensor_from_cpu_tensor",
              op::tuple({op::tensor(), op::global("torch", "float32"), op::text("xla:0"), no})),
        utils("_rebuild_tensor", op::tuple({view})), op::tensor() + op::dict({}) + "b"}) {
    read_as<const pickle::Tensor*>(code, [](const pickle::Tensor* tensor) {
      EXPECT_EQ(tensor->dtype, c10::ScalarType::Float);
      EXPECT_EQ(tensor->storage->numel, 3);
    });
  }
}

}  // namespace
}  // namespace gemma
