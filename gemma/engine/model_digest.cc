#include <algorithm>
#include <span>
#include <string>
#include <type_traits>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/crc32.h>
#include <gemma/engine/model_digest.h>

namespace gemma {
namespace {

constexpr size_t kSample = 64;    // Bytes that are looked at together.
constexpr size_t kSamples = 256;  // Of a tensor.

class Digest {
 public:
  void add(Bytes bytes) { value_ = crc32(bytes, value_); }

  template <typename T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  void add(const T& value) {
    add(std::as_bytes(std::span(&value, 1)));
  }

  void add(const std::string& name, const at::Tensor& tensor) {
    add(std::as_bytes(std::span(name)));
    for (const auto size : tensor.sizes()) add(size);
    add(tensor.scalar_type());
    const auto plain = tensor.detach().cpu().contiguous();
    const Bytes bytes(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes());
    const auto step = std::max(kSample, bytes.size() / kSamples);
    for (size_t at = 0; at < bytes.size(); at += step) {
      add(bytes.subspan(at, std::min(kSample, bytes.size() - at)));
    }
  }

  uint32_t value() const { return value_; }

 private:
  uint32_t value_ = 0;
};

}  // namespace

uint32_t model_digest(const EngineModelImpl& model) {
  Digest digest;
  const auto config = model.config_bytes();
  digest.add(std::as_bytes(std::span(config)));
  for (const auto& parameter : model.named_parameters()) {
    digest.add(parameter.key(), parameter.value());
  }
  for (const auto& buffer : model.named_buffers()) digest.add(buffer.key(), buffer.value());
  return digest.value();
}

}  // namespace gemma
