#include <algorithm>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/pickle_calls.h>

namespace gemma::pickle {
namespace {

using c10::ScalarType;
using Kind = Global::Kind;

// What torch calls the types of elements, in the names of storages and tensors, and as dtypes.
// Those without a width are no numbers of whole bytes, or none without a scale.
struct ElementType {
  std::string_view legacy;  // torch.<legacy>Storage, torch.<legacy>Tensor; empty: none.
  std::string_view dtype;   // torch.<dtype>.
  ScalarType type = ScalarType::Undefined;
  uint8_t itemsize = 0;
};

constexpr ElementType kElementTypes[] = {
    {"Float", "float32", ScalarType::Float, 4},
    {"Double", "float64", ScalarType::Double, 8},
    {"Half", "float16", ScalarType::Half, 2},
    {"BFloat16", "bfloat16", ScalarType::BFloat16, 2},
    {"Char", "int8", ScalarType::Char, 1},
    {"Byte", "uint8", ScalarType::Byte, 1},
    {"Short", "int16", ScalarType::Short, 2},
    {"Int", "int32", ScalarType::Int, 4},
    {"Long", "int64", ScalarType::Long, 8},
    {"Bool", "bool", ScalarType::Bool, 1},
    {"ComplexFloat", "complex64", ScalarType::ComplexFloat, 8},
    {"ComplexDouble", "complex128", ScalarType::ComplexDouble, 16},
    {"", "complex32", ScalarType::ComplexHalf, 4},
    {"", "uint16", ScalarType::UInt16, 2},
    {"", "uint32", ScalarType::UInt32, 4},
    {"", "uint64", ScalarType::UInt64, 8},
    {"", "float8_e4m3fn", ScalarType::Float8_e4m3fn, 1},
    {"", "float8_e4m3fnuz", ScalarType::Float8_e4m3fnuz, 1},
    {"", "float8_e5m2", ScalarType::Float8_e5m2, 1},
    {"", "float8_e5m2fnuz", ScalarType::Float8_e5m2fnuz, 1},
    {"", "float8_e8m0fnu", ScalarType::Float8_e8m0fnu, 1},
    {"QInt8", "qint8"},
    {"QInt32", "qint32"},
    {"QUInt8", "quint8"},
    {"QUInt4x2", "quint4x2"},
    {"QUInt2x4", "quint2x4"},
    {"", "float4_e2m1fn_x2"},
    {"", "bits8"},
    {"", "bits16"},
    {"", "bits1x8"},
    {"", "bits2x4"},
    {"", "bits4x2"},
    {"", "int1"},
    {"", "int2"},
    {"", "int3"},
    {"", "int4"},
    {"", "int5"},
    {"", "int6"},
    {"", "int7"},
    {"", "uint1"},
    {"", "uint2"},
    {"", "uint3"},
    {"", "uint4"},
    {"", "uint5"},
    {"", "uint6"},
    {"", "uint7"},
};

constexpr Opaque kComplex{"complex"};
constexpr Opaque kCounter{"collections.Counter"};
constexpr Opaque kDefaultDict{"collections.defaultdict"};
constexpr Opaque kDevice{"torch.device"};
constexpr Opaque kLayout{"torch.layout"};
constexpr Opaque kItemsDict{"collections.OrderedDict of a list"};
constexpr Opaque kLegacyTensor{"tensor of PyTorch 0.3", true};
constexpr Opaque kParameter{"parameter without data", true};
constexpr Opaque kQuantized{"quantized tensor", true};
constexpr Opaque kSparse{"sparse tensor", true};
constexpr Opaque kMeta{"tensor without data (of device 'meta')", true};
constexpr Opaque kNested{"nested tensor", true};
constexpr Opaque kSubclass{"tensor of a class of its own", true};
constexpr Opaque kFromNumpy{"tensor of a device, kept as NumPy's", true};
constexpr Opaque kOtherDtype{"tensor of a dtype of less than a byte", true};
constexpr Opaque kConverted{"tensor of a device, kept in another dtype", true};
constexpr Opaque kConjugated{"conjugated or negated tensor", true};
constexpr Opaque kManyDims{"tensor of more than 8 dimensions", true};

struct KnownGlobal {
  std::string_view module, name;
  Kind kind;
  const Opaque* makes = &kOther;
};

// torch/_weights_only_unpickler.py: _get_allowed_globals. The last rows are those of Python's own
// types that it does not list: as harmless, and written by the same programs.
constexpr KnownGlobal kKnownGlobals[] = {
    {"collections", "OrderedDict", Kind::kOrderedDict},
    {"torch._utils", "_rebuild_tensor", Kind::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v2", Kind::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v3", Kind::kRebuildTensorV3},
    {"torch._utils", "_rebuild_parameter", Kind::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", Kind::kRebuildParameter},
    {"torch._tensor", "_rebuild_from_type_v2", Kind::kRebuildFromType},
    {"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", Kind::kRebuildFromCpu},
    {"torch.nn.parameter", "Parameter", Kind::kParameter},
    {"torch", "Size", Kind::kSize},
    {"torch", "device", Kind::kOpaque, &kDevice},
    {"torch", "Tensor", Kind::kOpaque, &kLegacyTensor},
    {"torch.serialization", "_get_layout", Kind::kOpaque, &kLayout},
    {"torch", "per_tensor_affine", Kind::kOpaque},
    {"torch", "per_tensor_symmetric", Kind::kOpaque},
    {"torch", "per_channel_affine", Kind::kOpaque},
    {"torch", "per_channel_symmetric", Kind::kOpaque},
    {"torch", "per_channel_affine_float_qparams", Kind::kOpaque},
    {"torch._utils", "_rebuild_qtensor", Kind::kOpaque, &kQuantized},
    {"torch._utils", "_rebuild_sparse_tensor", Kind::kOpaque, &kSparse},
    {"torch._utils", "_rebuild_meta_tensor_no_storage", Kind::kOpaque, &kMeta},
    {"torch._utils", "_rebuild_nested_tensor", Kind::kOpaque, &kNested},
    {"torch._utils", "_rebuild_wrapper_subclass", Kind::kOpaque, &kSubclass},
    {"torch._utils", "_rebuild_device_tensor_from_numpy", Kind::kOpaque, &kFromNumpy},
    {"torch.storage", "TypedStorage", Kind::kOpaque},
    {"collections", "Counter", Kind::kOpaque, &kCounter},
    {"_codecs", "encode", Kind::kOpaque, &kBytes},
    {"builtins", "bytearray", Kind::kOpaque, &kByteArray},
    {"builtins", "set", Kind::kOpaque, &kSet},
    {"builtins", "complex", Kind::kOpaque, &kComplex},
    {"collections", "defaultdict", Kind::kOpaque, &kDefaultDict},
    {"builtins", "frozenset", Kind::kOpaque, &kFrozen},
    {"builtins", "bytes", Kind::kOpaque, &kBytes},
    {"builtins", "list", Kind::kOpaque},
    {"builtins", "dict", Kind::kOpaque},
    {"builtins", "tuple", Kind::kOpaque},
    {"builtins", "int", Kind::kOpaque},
    {"builtins", "float", Kind::kOpaque},
    {"builtins", "bool", Kind::kOpaque},
    {"builtins", "str", Kind::kOpaque},
};

// "Float" of "FloatStorage"; none for another name.
std::optional<std::string_view> without(std::string_view name, std::string_view ending) {
  if (name.size() <= ending.size() || !name.ends_with(ending)) return std::nullopt;
  return name.substr(0, name.size() - ending.size());
}

const ElementType* find_type(std::string_view ElementType::* field, std::string_view name) {
  const auto* const found = std::ranges::find(kElementTypes, name, field);
  return found == std::end(kElementTypes) ? nullptr : found;
}

// torch.float32, torch.FloatStorage, torch.cuda.sparse.FloatTensor and the like.
std::optional<Global> find_of_torch(std::string_view module, std::string_view name) {
  if (name == "UntypedStorage" && (module == "torch" || module == "torch.storage")) {
    return Global{.kind = Kind::kStorageType, .dtype = ScalarType::Byte, .itemsize = 1};
  }
  const bool is_sparse = module == "torch.sparse" || module == "torch.cuda.sparse";
  if (!is_sparse && module != "torch" && module != "torch.cuda") return std::nullopt;
  if (const auto legacy = without(name, "Tensor");
      legacy && find_type(&ElementType::legacy, *legacy)) {
    return Global{.kind = Kind::kOpaque, .makes = is_sparse ? &kSparse : &kLegacyTensor};
  }
  const auto legacy = without(name, "Storage");
  const auto* const type = legacy && !is_sparse ? find_type(&ElementType::legacy, *legacy)
                           : module == "torch"  ? find_type(&ElementType::dtype, name)
                                                : nullptr;
  if (type == nullptr) return std::nullopt;
  return Global{.kind = legacy ? Kind::kStorageType : Kind::kDtype,
                .dtype = type->type,
                .itemsize = type->itemsize};
}

bool is_tensor(const Value& value) {
  const auto* const* const opaque = std::get_if<const Opaque*>(&value);
  return std::holds_alternative<const Tensor*>(value) ||
         (opaque != nullptr && (*opaque)->is_tensor);
}

const Tuple* expect_numbers(const Value& value, std::string_view what) {
  const Tuple* const tuple = expect<const Tuple*>(value, what, "a tuple");
  for (const Value& item : tuple->items) expect<int64_t>(item, what, "a tuple of int");
  return tuple;
}

// Metadata says that a tensor is to be read conjugated or negated.
bool is_plain(const std::vector<Value>& args, size_t metadata) {
  return args.size() <= metadata || std::holds_alternative<std::monostate>(args[metadata]) ||
         expect<Dict*>(args[metadata], "a tensor's metadata", "dict")->items.empty();
}

// The four arguments that all forms begin with.
Tensor view_of(const std::vector<Value>& args) {
  const Tensor tensor{
      .storage = expect<const Storage*>(args[0], "a tensor's storage", "a storage"),
      .dtype = ScalarType::Undefined,
      .itemsize = 0,
      .offset = expect<int64_t>(args[1], "a tensor's offset", "int"),
      .sizes = expect_numbers(args[2], "a tensor's size"),
      .strides = expect_numbers(args[3], "a tensor's stride"),
  };
  if (tensor.sizes->items.size() != tensor.strides->items.size()) {
    format_error("a tensor has {} sizes and {} strides", tensor.sizes->items.size(),
                 tensor.strides->items.size());
  }
  return tensor;
}

Value tensor_of(Pickle& pickle, Tensor view, ScalarType dtype, uint8_t itemsize) {
  if (itemsize == 0) return &kOtherDtype;
  if (view.sizes->items.size() > kMaxDims) return &kManyDims;
  view.dtype = dtype;
  view.itemsize = itemsize;
  return &pickle.tensors.emplace_back(view);
}

// torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad,
// backward_hooks, metadata=None), and _rebuild_tensor with the first four.
Value rebuild_tensor(Pickle& pickle, const Value& arguments) {
  const auto& args = expect_arguments(arguments, "_rebuild_tensor_v2", 4, 7);
  const auto view = view_of(args);
  if (args.size() > 4) expect<bool>(args[4], "a tensor's requires_grad", "bool");
  if (args.size() > 5) expect<Dict*>(args[5], "a tensor's backward_hooks", "dict");
  if (!is_plain(args, 6)) return &kConjugated;
  return tensor_of(pickle, view, view.storage->dtype, view.storage->itemsize);
}

// torch._utils._rebuild_tensor_v3(storage, storage_offset, size, stride, requires_grad,
// backward_hooks, dtype, metadata=None), of dtypes without a type of storage.
Value rebuild_tensor_v3(Pickle& pickle, const Value& arguments) {
  const auto& args = expect_arguments(arguments, "_rebuild_tensor_v3", 7, 8);
  const auto view = view_of(args);
  const auto dtype = expect<Global>(args[6], "a tensor's dtype", "torch.dtype");
  if (dtype.kind != Kind::kDtype) format_error("a tensor's dtype is a function");
  if (!is_plain(args, 7)) return &kConjugated;
  return tensor_of(pickle, view, dtype.dtype, dtype.itemsize);
}

// torch._utils._rebuild_parameter(data, requires_grad, backward_hooks), or with Python attributes
// as a fourth.
Value rebuild_parameter(const Value& arguments) {
  const auto& args = expect_arguments(arguments, "_rebuild_parameter", 3, 4);
  expect<bool>(args[1], "a parameter's requires_grad", "bool");
  expect<Dict*>(args[2], "a parameter's backward_hooks", "dict");
  if (!is_tensor(args[0])) expect<const Tensor*>(args[0], "a parameter's data", "a tensor");
  return args[0];
}

// torch._tensor._rebuild_from_type_v2(function, new_type, arguments, state): a tensor with Python
// attributes.
Value rebuild_from_type(Pickle& pickle, const Value& arguments) {
  const auto& args = expect_arguments(arguments, "_rebuild_from_type_v2", 4, 4);
  const auto function = expect<Global>(args[0], "what makes a tensor", "a function");
  if (function.kind == Kind::kRebuildFromType) format_error("_rebuild_from_type_v2 calls itself");
  return call(pickle, function, args[2]);
}

// torch._utils._rebuild_device_tensor_from_cpu_tensor(data, dtype, device, requires_grad)
Value rebuild_from_cpu(const Value& arguments) {
  const auto& args = expect_arguments(arguments, "_rebuild_device_tensor_from_cpu_tensor", 4, 4);
  const auto* const* const tensor = std::get_if<const Tensor*>(&args[0]);
  const auto dtype = expect<Global>(args[1], "a tensor's dtype", "torch.dtype");
  if (tensor == nullptr || dtype.dtype != (*tensor)->dtype) return &kConverted;
  return *tensor;
}

// The first argument, if it is one of those wanted.
const Value* first_of(const Value& arguments) {
  const auto* const* const tuple = std::get_if<const Tuple*>(&arguments);
  return tuple == nullptr || (*tuple)->items.empty() ? nullptr : &(*tuple)->items.front();
}

Value make_parameter(const Value& arguments) {
  const auto* const data = first_of(arguments);
  return data != nullptr && is_tensor(*data) ? *data : &kParameter;
}

Value make_size(const Value& arguments) {
  const auto* const sizes = first_of(arguments);
  return sizes != nullptr && std::holds_alternative<const Tuple*>(*sizes) ? *sizes : &kOther;
}

Value make_dict(Pickle& pickle, const Value& arguments) {
  if (!expect_arguments(arguments, "OrderedDict", 0, 1).empty()) return &kItemsDict;
  Dict& dict = pickle.dicts.emplace_back();
  dict.is_ordered_dict = true;
  return &dict;
}

}  // namespace

const std::vector<Value>& expect_arguments(const Value& value,
                                           std::string_view function,
                                           size_t least,
                                           size_t most) {
  const auto& items =
      expect<const Tuple*>(value, fmt::format("the argument of {}", function), "tuple")->items;
  if (items.size() < least || items.size() > most) {
    format_error("{} has {} arguments, not {}", function, items.size(), most);
  }
  return items;
}

Global find_global(std::string_view module, std::string_view name) {
  // As Python 2, and so protocol 2, has it.
  const std::string_view home = module == "__builtin__" ? "builtins" : module;
  for (const auto& known : kKnownGlobals) {
    if (known.module == home && known.name == name) {
      return {.kind = known.kind, .makes = known.makes};
    }
  }
  if (const auto found = find_of_torch(module, name)) return *found;
  format_error(
      "refers to '{}.{}', which is not part of a tensor file; nothing was executed. If you made "
      "the file, save only tensors: torch.save(model.state_dict(), ...)",
      printable(module), printable(name));
}

Value call(Pickle& pickle, const Global& function, const Value& arguments) {
  switch (function.kind) {
    case Kind::kOrderedDict:
      return make_dict(pickle, arguments);
    case Kind::kRebuildTensor:
      return rebuild_tensor(pickle, arguments);
    case Kind::kRebuildTensorV3:
      return rebuild_tensor_v3(pickle, arguments);
    case Kind::kRebuildParameter:
      return rebuild_parameter(arguments);
    case Kind::kRebuildFromType:
      return rebuild_from_type(pickle, arguments);
    case Kind::kRebuildFromCpu:
      return rebuild_from_cpu(arguments);
    case Kind::kParameter:
      return make_parameter(arguments);
    case Kind::kSize:
      return make_size(arguments);
    case Kind::kOpaque:
      return function.makes;
    case Kind::kStorageType:
      format_error("a storage's type is called as a function");
    case Kind::kDtype:
      format_error("a dtype is called as a function");
  }
  format_error("a function is of no kind");
}

}  // namespace gemma::pickle
