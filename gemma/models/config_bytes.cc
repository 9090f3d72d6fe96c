#include <map>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <gemma/config/fields.h>
#include <gemma/models/config_bytes.h>

namespace gemma {
namespace {

class Bytes {
 public:
  template <typename T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  void add(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  template <typename T>
    requires(std::is_arithmetic_v<T>)
  void add(const std::optional<T>& value) {
    add(value.has_value());
    if (value) add(*value);
  }
  void add(const std::optional<std::vector<AttentionType>>& types) {
    for (const auto type : types.value_or(std::vector<AttentionType>{})) add(type);
  }
  void add(const std::optional<std::map<AttentionType, int64_t>>& numbers) {
    for (const auto& [type, number] : numbers.value_or(std::map<AttentionType, int64_t>{})) {
      add(type);
      add(number);
    }
  }

  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

}  // namespace

std::string config_bytes(const GemmaConfig& config) {
  Bytes bytes;
  // Names of dtypes and files say nothing that tensors do not, nor does what an image goes through.
  visit_fields<GemmaConfig>([&](const auto& field) {
    if constexpr (requires { bytes.add(config.*field.member); }) bytes.add(config.*field.member);
  });
  return bytes.take();
}

std::string config_bytes(const recurrentgemma::GriffinConfig& config) {
  Bytes bytes;
  // The other fields are sizes of tensors.
  bytes.add(config.num_heads);
  bytes.add(config.embeddings_scale_by_sqrt_dim);
  bytes.add(config.attention_window_size);
  bytes.add(config.logits_soft_cap);
  return bytes.take();
}

}  // namespace gemma
