#include <set>
#include <stdexcept>
#include <utility>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/safetensors.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/checkpoint/utf8.h>
#include <gemma/config/dtype_name.h>

namespace gemma {
namespace {

using nlohmann::ordered_json;

void check(const OutputFile& file, const std::vector<TensorSpec>& tensors) {
  std::set<std::string_view> names;
  for (const auto& tensor : tensors) {
    if (!is_utf8(tensor.name)) {
      refuse_tensor(file.path(), tensor.name, "has a name that is not UTF-8; rename it");
    }
    if (!names.insert(tensor.name).second) {
      refuse_tensor(file.path(), tensor.name, "is given twice; rename one of the two");
    }
    if (safetensors_dtype(tensor.dtype).empty()) {
      refuse_tensor(file.path(), tensor.name,
                    fmt::format("is {}, which safetensors do not hold; convert it to float32, say",
                                dtype_name(tensor.dtype)));
    }
  }
}

// transformers wants to know which framework's tensors they are.
std::string header_of(const std::vector<TensorSpec>& tensors) {
  ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    const uint64_t end = offset + tensor.nbytes();
    header[tensor.name] = {{"dtype", safetensors_dtype(tensor.dtype)},
                           {"shape", tensor.sizes},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  auto text = header.dump();
  constexpr size_t kAlignment = 64;  // So that every dtype is aligned in memory.
  const size_t data_at = sizeof(uint64_t) + text.size();
  text.append((kAlignment - data_at % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

uint64_t TensorSpec::nbytes() const {
  return static_cast<uint64_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorSpec> tensors,
                                     bool overwrite)
    : file_(path, overwrite), tensors_(std::move(tensors)) {
  check(file_, tensors_);
  const auto header = header_of(tensors_);
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(std::as_bytes(std::span(header)));
}

void SafetensorsWriter::add(std::string_view name, const at::Tensor& tensor) {
  if (next_ == tensors_.size()) refuse_tensor(file_.path(), name, "is one more than was announced");
  const auto& spec = tensors_[next_];
  if (name != spec.name || tensor.sizes() != at::IntArrayRef(spec.sizes) ||
      tensor.scalar_type() != spec.dtype) {
    refuse_tensor(file_.path(), name,
                  fmt::format("is not what was announced, '{}'", printable(spec.name)));
  }
  const auto dense = tensor.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
  file_.write({static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()});
  ++next_;
}

void SafetensorsWriter::finish() {
  if (next_ != tensors_.size()) {
    throw std::logic_error(
        fmt::format("SafetensorsWriter: {} of {} tensors were given", next_, tensors_.size()));
  }
  file_.commit();
}

}  // namespace gemma
