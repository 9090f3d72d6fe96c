#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/weights/gguf/gguf_config.h>

namespace gemma {
namespace {

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;
constexpr int64_t kTheta = 10'000;  // Of all layers before Gemma 3, and of its local ones.

// Keys are under the architecture's name.
class Reader {
 public:
  explicit Reader(const GgufMetadata& metadata)
      : metadata_(metadata), architecture_(metadata.require<std::string>("general.architecture")) {}

  const std::string& architecture() const { return architecture_; }

  template <typename T>
  std::optional<T> get(std::string_view name) const {
    return metadata_.get<T>(key(name));
  }

  template <typename T>
  T require(std::string_view name) const {
    return metadata_.require<T>(key(name));
  }

  // The decimal number that the file's float32 was meant to be: 1e-6, not 9.99999997e-07.
  std::optional<double> decimal(std::string_view name) const {
    const auto value = get<double>(name);
    if (!value || !std::isfinite(*value)) return value;
    return std::stod(fmt::format("{}", static_cast<float>(*value)));
  }

  // A float that must be a whole number from 1 on.
  std::optional<int64_t> whole(std::string_view name) const {
    const auto value = get<double>(name);
    if (!value) return std::nullopt;
    if (!(*value >= 1 && *value <= 1e15) || std::trunc(*value) != *value) {
      refuse(fmt::format("key '{}' is {}, not a whole number from 1 on", key(name), *value));
    }
    return static_cast<int64_t>(*value);
  }

  // The type that a key has tells a number for all layers from one for each.
  bool is_array(std::string_view name) const {
    const auto found = metadata_.values().find(key(name));
    return found != metadata_.values().end() && found->second.type == GgufType::kArray;
  }

  [[noreturn]] void refuse(std::string_view what) const { refuse_file(metadata_.path(), what); }

 private:
  std::string key(std::string_view name) const { return fmt::format("{}.{}", architecture_, name); }

  const GgufMetadata& metadata_;
  std::string architecture_;
};

// What the sizes of a family have in common.
GemmaConfig family(const Reader& reader, const std::string& dtype) {
  if (reader.architecture() == "gemma") return get_config_for_2b(dtype);
  if (reader.architecture() == "gemma2") return get_config_for_2b_v2(dtype);
  if (reader.architecture() == "gemma3") return get_config_for_1b(dtype);
  reader.refuse(fmt::format("is of architecture '{}'; gemma, gemma2 and gemma3 are read",
                            printable(reader.architecture())));
}

void read_sizes(const Reader& reader, GemmaConfig& config) {
  config.max_position_embeddings = reader.require<int64_t>("context_length");
  config.num_hidden_layers = reader.require<int64_t>("block_count");
  config.hidden_size = reader.require<int64_t>("embedding_length");
  config.intermediate_size = reader.require<int64_t>("feed_forward_length");
  config.num_attention_heads = reader.require<int64_t>("attention.head_count");
  config.num_key_value_heads =
      reader.get<int64_t>("attention.head_count_kv").value_or(config.num_attention_heads);
  config.head_dim = reader.get<int64_t>("attention.key_length").value_or(config.head_dim);
  config.rms_norm_eps =
      reader.decimal("attention.layer_norm_rms_epsilon").value_or(config.rms_norm_eps);
  const auto value_length = reader.get<int64_t>("attention.value_length");
  if (value_length.value_or(config.head_dim) != config.head_dim) {
    reader.refuse(fmt::format("has keys of {} numbers and values of {}; Gemma's are of one length",
                              config.head_dim, *value_length));
  }
}

// Layer i is global if i + 1 is a multiple of `period`.
std::vector<AttentionType> periodic(int64_t period, int64_t length) {
  std::vector<AttentionType> types(static_cast<size_t>(length), kLocal);
  for (int64_t i = 0; i < length; ++i) {
    if ((i + 1) % period == 0) types[static_cast<size_t>(i)] = kGlobal;
  }
  return types;
}

void read_attention_types(const Reader& reader, GemmaConfig& config) {
  constexpr auto kPattern = "attention.sliding_window_pattern";
  const bool is_gemma3 = config.architecture == Architecture::kGemma3;
  // llama.cpp assumes a window for Gemma 2, and none for Gemma 3.
  const auto window = reader.get<int64_t>("attention.sliding_window")
                          .value_or(is_gemma3 ? 0 : *config.sliding_window_size);
  if (window == 0) {
    config.sliding_window_size = std::nullopt;
    config.attn_types = std::nullopt;
    return;
  }
  config.sliding_window_size = window;
  if (reader.is_array(kPattern)) {
    std::vector<AttentionType> types;
    for (const bool is_local : reader.require<std::vector<bool>>(kPattern)) {
      types.push_back(is_local ? kLocal : kGlobal);
    }
    config.attn_types = types;
    return;
  }
  const auto period = reader.get<int64_t>(kPattern).value_or(is_gemma3 ? 6 : 2);
  if (period < 1 || period > 1000) {
    reader.refuse(
        fmt::format("key '{}.{}' is {}, not 1 to 1000", reader.architecture(), kPattern, period));
  }
  // As long as those of the variants.
  config.attn_types = periodic(period, is_gemma3 ? period : config.num_hidden_layers);
}

// Absent: as the family has it; 0: none.
void read_softcap(const Reader& reader, const char* name, std::optional<double>& cap) {
  const auto value = reader.decimal(name);
  if (!value) return;
  cap = *value > 0 ? value : std::nullopt;
}

void read_rotary(const Reader& reader, GemmaConfig& config) {
  const auto base = reader.whole("rope.freq_base");
  if (config.architecture != Architecture::kGemma3) {
    if (base.value_or(kTheta) != kTheta) {
      reader.refuse(fmt::format("key '{}.rope.freq_base' is {}, but Gemma 1 and 2 have {}",
                                reader.architecture(), *base, kTheta));
    }
    return;
  }
  config.rope_wave_length = std::map<AttentionType, int64_t>{
      {kLocal, reader.whole("rope.freq_base_swa").value_or(kTheta)},
      {kGlobal, base.value_or(1'000'000)}};
  if (reader.get<std::string>("rope.scaling.type").value_or("none") == "linear") {
    config.rope_scaling_factor = reader.whole("rope.scaling.factor");
  }
}

}  // namespace

GemmaConfig gguf_config(const Checkpoint& checkpoint, const std::string& dtype) {
  if (checkpoint.metadata() == nullptr) {
    refuse_file(checkpoint.path(), "is not a GGUF file");
  }
  const Reader reader(*checkpoint.metadata());
  auto config = family(reader, dtype);
  read_sizes(reader, config);
  const auto* const embedding = checkpoint.find("token_embd.weight");
  if (embedding == nullptr || embedding->sizes.size() != 2) {
    reader.refuse("has no matrix 'token_embd.weight': is it a part of a model?");
  }
  config.vocab_size = embedding->sizes[0];
  if (config.architecture != Architecture::kGemma1) {
    read_attention_types(reader, config);
    read_softcap(reader, "attn_logit_softcapping", config.attn_logit_softcapping);
    read_softcap(reader, "final_logit_softcapping", config.final_logit_softcapping);
  }
  read_rotary(reader, config);
  config.tokenizer = checkpoint.path();
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    reader.refuse(error.what());
  }
  config.query_pre_attn_scalar = gguf_query_scalar(config);
  return config;
}

std::optional<int64_t> gguf_query_scalar(const GemmaConfig& config) {
  const bool is_27b =
      (config.architecture == Architecture::kGemma2 && config.num_hidden_layers == 46) ||
      (config.architecture == Architecture::kGemma3 && config.num_hidden_layers == 62);
  if (!is_27b) return std::nullopt;
  return config.hidden_size / config.num_attention_heads;
}

}  // namespace gemma
