#include <limits>
#include <stdexcept>

#include <ATen/core/Tensor.h>
#include <c10/util/strides.h>
#include <fmt/format.h>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/pickle_ops.h>
#include <gemma/checkpoint/torch_archive.h>
#include <gemma/checkpoint/torch_writer.h>
#include <gemma/checkpoint/utf8.h>
#include <gemma/config/dtype_name.h>

namespace gemma {
namespace {

using pickle::Op;

// The folder that all records are in; torch.save takes the file's name, and readers take any.
constexpr std::string_view kRoot = "archive/";

// Pieces of a pickle of protocol 2. Each string leaves one value on the stack.
std::string code(Op op) { return {static_cast<char>(op)}; }

template <typename T>
std::string code(Op op, T argument) {
  return code(op).append(reinterpret_cast<const char*>(&argument), sizeof(T));
}

std::string integer(int64_t value) {
  const auto fits = [value](auto limit) { return value >= 0 && value <= limit; };
  if (fits(std::numeric_limits<uint8_t>::max())) {
    return code(Op::kBinInt1, static_cast<uint8_t>(value));
  }
  if (fits(std::numeric_limits<uint16_t>::max())) {
    return code(Op::kBinInt2, static_cast<uint16_t>(value));
  }
  if (fits(std::numeric_limits<int32_t>::max())) {
    return code(Op::kBinInt, static_cast<int32_t>(value));
  }
  return code(Op::kLong1, uint8_t{sizeof(value)})
      .append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string integers(at::IntArrayRef values) {
  std::string items = code(Op::kMark);
  for (const int64_t value : values) items += integer(value);
  return items + code(Op::kTuple);
}

std::string text(std::string_view value) {
  return code(Op::kBinUnicode, static_cast<uint32_t>(value.size())).append(value);
}

std::string global(std::string_view module, std::string_view name) {
  return code(Op::kGlobal) + fmt::format("{}\n{}\n", module, name);
}

std::string empty_ordered_dict() {
  return global("collections", "OrderedDict") + code(Op::kEmptyTuple) + code(Op::kReduce);
}

// Empty for a dtype that Checkpoint does not read.
std::string_view storage_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "FloatStorage";
    case at::kDouble:
      return "DoubleStorage";
    case at::kHalf:
      return "HalfStorage";
    case at::kBFloat16:
      return "BFloat16Storage";
    case at::kChar:
      return "CharStorage";
    case at::kByte:
      return "ByteStorage";
    case at::kShort:
      return "ShortStorage";
    case at::kInt:
      return "IntStorage";
    case at::kLong:
      return "LongStorage";
    case at::kBool:
      return "BoolStorage";
    case at::kComplexFloat:
      return "ComplexFloatStorage";
    case at::kComplexDouble:
      return "ComplexDoubleStorage";
    default:
      return {};
  }
}

// torch._utils._rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks)
std::string pickled(const at::Tensor& tensor, std::string_view key) {
  const auto storage =
      code(Op::kMark) + text("storage") + global("torch", storage_type(tensor.scalar_type())) +
      text(key) + text("cpu") + integer(tensor.numel()) + code(Op::kTuple) + code(Op::kBinPersId);
  // Of the sizes, as a contiguous tensor may have any stride where its size is 1.
  const auto strides = c10::contiguous_strides(tensor.sizes());
  return global("torch._utils", "_rebuild_tensor_v2") + code(Op::kMark) + storage + integer(0) +
         integers(tensor.sizes()) + integers(strides) + code(Op::kNewFalse) + empty_ordered_dict() +
         code(Op::kTuple) + code(Op::kReduce);
}

void check(const OutputFile& file, std::string_view name, const at::Tensor& tensor) {
  if (!is_utf8(name)) refuse_tensor(file.path(), name, "has a name that is not UTF-8; rename it");
  if (!tensor.defined() || tensor.is_meta() || tensor.layout() != at::kStrided) {
    refuse_tensor(file.path(), name,
                  "has no data, or is sparse; give a tensor with all its elements");
  }
  if (storage_type(tensor.scalar_type()).empty()) {
    refuse_tensor(file.path(), name,
                  fmt::format("is {}, which checkpoints do not hold; convert it to float32, say",
                              dtype_name(tensor.scalar_type())));
  }
}

Bytes bytes_of(const at::Tensor& dense) {
  return {static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()};
}

Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace

TorchWriter::TorchWriter(const std::filesystem::path& path, bool overwrite)
    : file_(path, overwrite), zip_(file_) {
  zip_.add(fmt::format("{}byteorder", kRoot), bytes_of("little"));
  zip_.add(fmt::format("{}version", kRoot), bytes_of("3\n"));
}

void TorchWriter::add(std::string_view name, const at::Tensor& tensor) {
  check(file_, name, tensor);
  const auto key = std::to_string(names_.size());
  if (!names_.emplace(name).second) {
    refuse_tensor(file_.path(), name, "is given twice; rename one of the two");
  }
  const auto dense = tensor.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
  zip_.add(fmt::format("{}data/{}", kRoot, key), bytes_of(dense));
  items_ += text(name) + pickled(dense, key);
}

void TorchWriter::set_config(std::string_view json) {
  if (!is_utf8(json)) {
    throw std::invalid_argument(about_file(file_.path(), "the config is not UTF-8"));
  }
  config_ = text(kConfigKey) + text(json) + code(Op::kSetItem);
}

void TorchWriter::finish() {
  // Last, where torch.save has it first: only now are all tensors known.
  zip_.add(fmt::format("{}data.pkl", kRoot),
           bytes_of(code(Op::kProto, uint8_t{2}) + code(Op::kEmptyDict) + text("model_state_dict") +
                    empty_ordered_dict() + code(Op::kMark) + items_ + code(Op::kSetItems) +
                    code(Op::kSetItem) + config_ + code(Op::kStop)));
  zip_.finish();
  file_.commit();
}

void save_weights(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                  bool overwrite) {
  TorchWriter writer(path, overwrite);
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor);
  writer.finish();
}

}  // namespace gemma
