#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/pickle.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::BadFile;
using testing::pickle_of;

std::string os_system() { return op::global("os", "system"); }

std::vector<BadFile> hostile() {
  const std::string nothing = "nothing was executed";
  return {
      {"OsSystem", op::call(os_system(), op::tuple({op::text("id")})),
       "refers to 'os.system', which is not part of a tensor file; " + nothing},
      {"PosixSystem", op::call(op::global("posix", "system"), op::tuple({op::text("id")})),
       "'posix.system'"},
      {"BuiltinsEval", op::call(op::global("builtins", "eval"), op::tuple({op::text("1")})),
       "'builtins.eval'"},
      {"BuiltinsExecOfPython2", op::global("__builtin__", "exec"), "'__builtin__.exec'"},
      {"Getattr", op::global("builtins", "getattr"), "'builtins.getattr'"},
      {"SubprocessPopen", op::global("subprocess", "Popen"), "'subprocess.Popen'"},
      {"DottedName", op::global("collections", "OrderedDict.__reduce__"),
       "OrderedDict.__reduce__'"},
      {"DottedModule", op::global("torch", "_utils._rebuild_tensor_v2"), "which is not part"},
      {"AlmostAStorage", op::global("torch", "FloatStorage "), "which is not part"},
      {"TorchLoad", op::global("torch", "load"), "'torch.load'"},
      {"WholeModule", op::global("torch.nn.modules.linear", "Linear"),
       "torch.save(model.state_dict()"},
      {"StackGlobal", op::text("os") + op::text("system") + "\x93", "'os.system'"},
      {"GlobalThatDrivesATerminal", op::global("\x1b[2J", "x\r"), "'\\x1b[2J.x\\x0d'"},
      {"Inst", "(ios\nsystem\n", "0x69 (INST) is not part of a tensor file; " + nothing},
      {"Obj", "(" + op::text("x") + "o", "(OBJ)"},
      {"NewObjEx", op::none() + ")}\x92", "(NEWOBJ_EX)"},
      {"Extension", "\x82\x01", "(EXT1)"},
      {"PersIdAsText", "P0\n", "(PERSID)"},
      {"Dup", op::none() + "2", "(DUP)"},
      {"UnknownInstruction", "\xff", "0xff (unknown)"},
  };
}

// Sets the same empty state again and again: instructions without end that need no memory.
std::string endless_work() {
  std::string code = op::ordered_dict({}) + std::string("q\0", 2);
  for (int i = 0; i < 1 << 23; ++i) code += std::string_view("h\0b", 3);
  return code;
}

std::vector<BadFile> malformed() {
  return {
      {"StackUnderflow", "0", "(POP)"},
      {"TupleOfNothing", "\x85", "the stack is empty"},
      {"SetItemOfNothing", "}s", "the stack is empty"},
      {"MarkMissing", "t", "wants a MARK"},
      {"MarkMissingInAppends", "]e", "wants a MARK"},
      {"MarkGuardsWhatIsBelow", op::none() + "(\x85", "the stack is empty"},
      {"MarkGuardsTheList", "](" + op::none() + "a", "the stack is empty"},
      {"MarkLeft", "(" + op::none(), "a MARK is left at STOP"},
      {"ValueLeft", op::none() + op::none(), "1 values are left on the stack"},
      {"NothingLeft", "", "the stack is empty"},
      {"MemoMiss", "h\x05", "memo 5 is read but never set"},
      {"LongMemoMiss", "j" + testing::raw<uint32_t>(4'000'000'000), "memo 4000000000 is read"},
      {"MemoHole", op::none() + "q\x04h\x03", "memo 3 is read but never set"},
      {"MemoHuge", op::none() + "r" + testing::raw<uint32_t>(4'000'000'000),
       "memo 4000000000 is out"},
      {"MemoOfNothing", "q\x01", "the stack is empty"},
      {"AppendToATuple", ")" + op::none() + "a", "of type tuple, not list"},
      {"AppendsToADict", "}(" + op::none() + "e", "of type dict, not list"},
      {"SetItemOnAList", "]" + op::text("a") + op::none() + "s", "of type list, not dict"},
      {"SetItemOnANumber", op::integer(1) + op::text("a") + op::none() + "s",
       "of type int, not dict"},
      {"SetItemsOnATensor", op::tensor() + "(" + op::text("a") + op::none() + "u",
       "type tensor, not dict"},
      {"SetItemsWithoutAValue", "}(" + op::text("a") + "u", "a key without a value"},
      {"BuildOnAPlainDict", "}}b", "of type dict, not collections.OrderedDict"},
      {"BuildWithATuple", op::ordered_dict({}) + ")b", "of type tuple, not dict"},
      {"EndlessNesting", std::string(100'000, '('), "nested more than 1000 deep"},
      {"EndlessStack", std::string(2'000'000, 'N'), "more than 1048576 values on the stack"},
      {"EndlessWork", endless_work(), "more than 8388608 values"},
      {"StringLongerThanThePickle", "X" + testing::raw(UINT32_MAX), "would take bytes"},
      {"StringNotUtf8", op::text("\xff\xfe"), "a string is not UTF-8: '\\xff\\xfe'"},
      {"StringCutInACharacter", op::text("gr\xc3"), "a string is not UTF-8"},
      {"StringOverlong", op::text("\xc0\xaf"), "a string is not UTF-8"},
      {"StringOverlongInThree", op::text("\xe0\x80\xaf"), "a string is not UTF-8"},
      {"StringOverlongInFour", op::text("\xf0\x80\x80\xaf"), "a string is not UTF-8"},
      {"StringPastUnicode", op::text("\xf4\x90\x80\x80"), "a string is not UTF-8"},
      {"Long1CutShort", "\x8a\x7f", "would take bytes"},
      {"GlobalWithoutAnEnd", "cos", "a name has no end"},
      {"GlobalNamedByANumber", op::text("os") + op::integer(1) + "\x93", "of type int, not str"},
      {"ProtoTwice", "\x80\x02", "0x80"},
  };
}

std::string from_type_of_itself() {
  const std::string function = op::global("torch._tensor", "_rebuild_from_type_v2");
  return op::call(function, op::tuple({function, op::none(), ")", op::none()}));
}

std::vector<BadFile> bad_calls() {
  const std::string rebuild = op::global("torch._utils", "_rebuild_tensor_v2");
  const std::string parameter = op::global("torch._utils", "_rebuild_parameter");
  const std::string hooks = op::ordered_dict({});
  const auto tensor = [&](const std::string& storage, const std::string& offset,
                          const std::string& sizes, const std::string& strides,
                          const std::string& grad, const std::string& last) {
    return op::call(rebuild, op::tuple({storage, offset, sizes, strides, grad, last}));
  };
  const std::string three = op::numbers({3});
  const std::string one = op::numbers({1});
  const std::string zero = op::integer(0);
  const std::string no = op::boolean(false);
  return {
      {"CallOfAString", op::call(op::text("x"), ")"), "of type str, not a function"},
      {"NewObjectOfNone", op::none() + ")\x81", "of type NoneType, not a function"},
      {"CallOfADtype", op::call(op::global("torch", "float32"), ")"), "a dtype is called"},
      {"TensorOfADtypeThatIsAFunction",
       op::call(op::global("torch._utils", "_rebuild_tensor_v3"),
                op::tuple({op::storage({}), zero, three, one, no, hooks, rebuild})),
       "a tensor's dtype is a function"},
      {"FromTypeOfItself", from_type_of_itself(), "_rebuild_from_type_v2 calls itself"},
      {"StorageTypeIsADtype",
       op::tuple({op::text("storage"), op::global("torch", "float32"), op::text("0"),
                  op::text("cpu"), zero}) +
           "Q",
       "a storage's type is a torch.dtype, not a torch storage"},
      {"CallOfAStorageType", op::call(op::global("torch", "FloatStorage"), ")"),
       "called as a function"},
      {"ArgumentsNotATuple", op::call(rebuild, "]"), "of type list, not tuple"},
      {"TooFewArguments", op::call(rebuild, ")"), "_rebuild_tensor_v2 has 0 arguments"},
      {"TooManyArguments", op::call(rebuild, op::numbers({1, 2, 3, 4, 5, 6, 7, 8})),
       "has 8 arguments"},
      {"StorageIsANumber", tensor(zero, zero, three, one, no, hooks), "storage is of type int"},
      {"OffsetIsAFloat", tensor(op::storage({}), op::real(1), three, one, no, hooks),
       "a tensor's offset is of type float, not int"},
      {"FloatInSizes", tensor(op::storage({}), zero, op::tuple({op::real(3)}), one, no, hooks),
       "a tensor's size is of type float, not a tuple of int"},
      {"BoolInStrides", tensor(op::storage({}), zero, three, op::tuple({no}), no, hooks),
       "a tensor's stride is of type bool"},
      {"SizesAreAList", tensor(op::storage({}), zero, "]", one, no, hooks),
       "of type list, not a tuple"},
      {"FewerStridesThanSizes", op::tensor({.sizes = {1, 3}}),
       "a tensor has 2 sizes and 1 strides"},
      {"RequiresGradIsANumber", tensor(op::storage({}), zero, three, one, zero, hooks),
       "of type int, not bool"},
      {"HooksAreAList", tensor(op::storage({}), zero, three, one, no, "]"),
       "of type list, not dict"},
      {"ParameterOfANumber", op::call(parameter, op::tuple({zero, no, hooks})),
       "of type int, not a tensor"},
      {"ParameterOfTwo", op::call(parameter, op::tuple({op::tensor(), no})),
       "has 2 arguments, not 4"},
      {"PersistentIdIsANumber", zero + "Q", "of type int, not tuple"},
      {"PersistentIdOfFour", op::tuple({op::text("storage"), zero, zero, zero}) + "Q",
       "a persistent id has 4 arguments"},
      {"PersistentIdOfAModule",
       op::tuple({op::text("module"), op::global("torch", "FloatStorage"), op::text("0"),
                  op::text("cpu"), zero}) +
           "Q",
       "not that of a storage"},
      {"StorageTypeIsText",
       op::tuple({op::text("storage"), op::text("float"), op::text("0"), op::text("cpu"), zero}) +
           "Q",
       "a storage's type is of type str"},
      {"StorageTypeIsAFunction",
       op::tuple({op::text("storage"), parameter, op::text("0"), op::text("cpu"), zero}) + "Q",
       "is a function, not a torch storage"},
      {"StorageKeyIsANumber",
       op::tuple({op::text("storage"), op::global("torch", "FloatStorage"), zero, op::text("cpu"),
                  zero}) +
           "Q",
       "a storage's key is of type int"},
      {"StorageCountIsAFloat",
       op::tuple({op::text("storage"), op::global("torch", "FloatStorage"), op::text("0"),
                  op::text("cpu"), op::real(3)}) +
           "Q",
       "element count is of type float"},
      {"StorageOfTwoTypes", op::tuple({op::storage({}), op::storage({.storage = "IntStorage"})}),
       "storage '0' is described twice, differently"},
      {"StorageOfTwoSizes", op::tuple({op::storage({}), op::storage({.numel = 4})}),
       "described twice"},
  };
}

// Wrapped by hand, not by pickle_of, because beginning or end is what is wrong.
std::vector<BadFile> bad_frames() {
  return {
      {"Empty", "", "the pickle ends without STOP"},
      {"WithoutProto", "N.", "does not start with PROTO"},
      {"ProtocolOne", "\x80\x01N.", "pickle protocol 1 is not 2 to 5"},
      {"ProtocolSix", "\x80\x06N.", "pickle protocol 6 is not 2 to 5"},
      {"ProtoCutShort", "\x80", "would take bytes"},
      {"WithoutStop", "\x80\x02N", "the pickle ends without STOP"},
      {"NumberCutShort", "\x80\x02J\1\2", "an instruction would take bytes 3+4 of 5"},
      {"TooLarge", "\x80\x02" + std::string(pickle::kMaxPickleBytes, 'N'), "more than 67108864"},
  };
}

class BadPickle : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadPickle, IsRefusedInOneLineThatNamesTheFile) {
  const auto& [name, code, expected] = GetParam();
  testing::expect_refused(
      {name, testing::torch_file(pickle_of(code), {testing::floats({1, 2, 3})}), expected});
}

class BadPickleFrame : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadPickleFrame, IsRefusedInOneLineThatNamesTheFile) {
  const auto& [name, bytes, expected] = GetParam();
  testing::expect_refused({name, testing::torch_file(bytes, {}), expected});
}

std::string name_of(const ::testing::TestParamInfo<BadFile>& row) { return row.param.name; }

INSTANTIATE_TEST_SUITE_P(Hostile, BadPickle, ::testing::ValuesIn(hostile()), name_of);
INSTANTIATE_TEST_SUITE_P(Malformed, BadPickle, ::testing::ValuesIn(malformed()), name_of);
INSTANTIATE_TEST_SUITE_P(Calls, BadPickle, ::testing::ValuesIn(bad_calls()), name_of);
INSTANTIATE_TEST_SUITE_P(Frames, BadPickleFrame, ::testing::ValuesIn(bad_frames()), name_of);

}  // namespace
}  // namespace gemma
