#include <algorithm>
#include <set>
#include <span>
#include <stdexcept>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/checkpoint/gguf_metadata.h>
#include <gemma/checkpoint/gguf_writer.h>
#include <gemma/checkpoint/utf8.h>
#include <gemma/config/dtype_name.h>

namespace gemma {
namespace {

constexpr uint64_t kAlignment = 32;    // What readers assume.
constexpr size_t kMaxTensorName = 63;  // GGML_MAX_NAME with its NUL.
constexpr size_t kMaxKey = 65535;

template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append(std::string& bytes, const std::string& text) {
  append(bytes, static_cast<uint64_t>(text.size()));
  bytes += text;
}

void append(std::string& bytes, bool value) { append(bytes, static_cast<uint8_t>(value)); }

void append(std::string& bytes, GgufType type) { append(bytes, static_cast<uint32_t>(type)); }

constexpr GgufType type_of(uint32_t) { return GgufType::kUint32; }
constexpr GgufType type_of(int32_t) { return GgufType::kInt32; }
constexpr GgufType type_of(float) { return GgufType::kFloat32; }
constexpr GgufType type_of(bool) { return GgufType::kBool; }
GgufType type_of(const std::string&) { return GgufType::kString; }

template <typename T>
void append_value(std::string& bytes, const T& value) {
  append(bytes, type_of(value));
  append(bytes, value);
}

template <typename T>
void append_value(std::string& bytes, const std::vector<T>& values) {
  append(bytes, GgufType::kArray);
  append(bytes, type_of(T{}));
  append(bytes, static_cast<uint64_t>(values.size()));
  for (const auto& value : values) append(bytes, static_cast<const T&>(value));
}

bool is_q8_0(const GgufTensor& tensor) { return tensor.encoding == Encoding::kQ8_0; }

// The number of ggml_type; none for what is not written.
std::optional<uint32_t> type_number(const GgufTensor& tensor) {
  if (is_q8_0(tensor)) return tensor.dtype == at::kFloat ? std::optional(8U) : std::nullopt;
  if (tensor.encoding != Encoding::kPlain) return std::nullopt;
  switch (tensor.dtype) {
    case at::kFloat:
      return 0;
    case at::kHalf:
      return 1;
    case at::kBFloat16:
      return 30;
    default:
      return std::nullopt;
  }
}

uint64_t size_in_file(const GgufTensor& tensor) {
  const auto elements = static_cast<uint64_t>(c10::multiply_integers(tensor.sizes));
  if (!is_q8_0(tensor)) return elements * c10::elementSize(tensor.dtype);
  const auto& format = block_format(tensor.encoding);
  return elements / format.elements * format.bytes;
}

uint64_t padded(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

std::string header(const std::vector<std::pair<std::string, GgufValue>>& metadata,
                   const std::vector<GgufTensor>& tensors) {
  std::string bytes = "GGUF";
  append(bytes, uint32_t{3});
  append(bytes, static_cast<uint64_t>(tensors.size()));
  append(bytes, static_cast<uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    append(bytes, key);
    std::visit([&bytes](const auto& held) { append_value(bytes, held); }, value);
  }
  uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    append(bytes, tensor.name);
    append(bytes, static_cast<uint32_t>(tensor.sizes.size()));
    std::for_each(tensor.sizes.rbegin(), tensor.sizes.rend(),
                  [&bytes](int64_t size) { append(bytes, size); });
    append(bytes, *type_number(tensor));
    append(bytes, offset);
    offset += padded(size_in_file(tensor));
  }
  return bytes;
}

bool is_name(const std::string& name, size_t limit) {
  return !name.empty() && name.size() <= limit && is_utf8(name);
}

}  // namespace

void GgufWriter::refuse(std::string_view what) const {
  throw std::invalid_argument(about_file(file_.path(), what));
}

void GgufWriter::check(const std::vector<std::pair<std::string, GgufValue>>& metadata) const {
  std::set<std::string_view> keys, names;
  for (const auto& [key, _] : metadata) {
    if (!is_name(key, kMaxKey) || !keys.insert(key).second) {
      refuse(fmt::format("key '{}' is given twice, or is no key; rename it", printable(key)));
    }
  }
  for (const GgufTensor& tensor : tensors_) {
    if (!is_name(tensor.name, kMaxTensorName) || !names.insert(tensor.name).second) {
      refuse(fmt::format("tensor '{}' is given twice, or its name is not 1 to {} bytes of UTF-8",
                         printable(tensor.name), kMaxTensorName));
    }
    const bool has_blocks =
        !is_q8_0(tensor) || (!tensor.sizes.empty() && tensor.sizes.back() % 32 == 0);
    if (!type_number(tensor) || !has_blocks || tensor.sizes.size() > 4) {
      refuse(fmt::format(
          "tensor '{}' is {} [{}]{}, which is not written; give float32, float16 or "
          "bfloat16 of up to 4 dimensions, and for Q8_0 rows of whole blocks of 32",
          printable(tensor.name), dtype_name(tensor.dtype), fmt::join(tensor.sizes, ", "),
          tensor.encoding == Encoding::kPlain ? "" : " in blocks"));
    }
  }
}

GgufWriter::GgufWriter(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, GgufValue>>& metadata,
                       std::vector<GgufTensor> tensors,
                       bool overwrite)
    : file_(path, overwrite), tensors_(std::move(tensors)) {
  check(metadata);
  const std::string begin = header(metadata, tensors_);
  file_.write(std::as_bytes(std::span(begin)));
  write_padding();
}

void GgufWriter::write_padding() {
  const std::string zeros(padded(file_.size()) - file_.size(), '\0');
  file_.write(std::as_bytes(std::span(zeros)));
}

void GgufWriter::write_q8_0(const at::Tensor& values) {
  constexpr size_t kPiece = size_t{1} << 20;
  const auto& format = block_format(Encoding::kQ8_0);
  const std::span<const float> numbers(values.const_data_ptr<float>(),
                                       static_cast<size_t>(values.numel()));
  std::vector<std::byte> blocks;
  for (size_t first = 0; first < numbers.size(); first += kPiece) {
    const auto piece = numbers.subspan(first, std::min(kPiece, numbers.size() - first));
    blocks.resize(piece.size() / format.elements * format.bytes);
    quantize_q8_0(piece, blocks);
    file_.write(blocks);
  }
}

void GgufWriter::add(std::string_view name, const at::Tensor& tensor) {
  if (next_ == tensors_.size()) {
    refuse(fmt::format("tensor '{}' comes after the last that was announced", printable(name)));
  }
  const GgufTensor& announced = tensors_[next_];
  if (name != announced.name || tensor.sizes() != at::IntArrayRef(announced.sizes) ||
      tensor.scalar_type() != announced.dtype) {
    refuse(fmt::format("tensor '{}' is {} [{}], but '{}', {} [{}], was announced", printable(name),
                       dtype_name(tensor.scalar_type()), fmt::join(tensor.sizes().vec(), ", "),
                       printable(announced.name), dtype_name(announced.dtype),
                       fmt::join(announced.sizes, ", ")));
  }
  const auto dense = tensor.detach().to(at::kCPU).contiguous();
  if (is_q8_0(announced)) {
    try {
      write_q8_0(dense);
    } catch (const std::invalid_argument& error) {
      refuse(fmt::format("tensor '{}': {}", printable(name), error.what()));
    }
  } else {
    file_.write({static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()});
  }
  write_padding();
  ++next_;
}

void GgufWriter::finish() {
  if (next_ != tensors_.size()) {
    throw std::logic_error(
        about_file(file_.path(),
                   fmt::format("tensor '{}' was announced, but not added", tensors_[next_].name)));
  }
  file_.commit();
}

}  // namespace gemma
