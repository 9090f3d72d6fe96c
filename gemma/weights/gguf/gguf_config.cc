#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/config/fields.h>
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
    const auto text = fmt::format("{}", static_cast<float>(*value));
    double decimal = 0;
    std::from_chars(text.data(), text.data() + text.size(), decimal);  // In any locale.
    return decimal;
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

  // For a key that may have one value only, the model being what it is.
  void expect(std::string_view name, double want) const {
    const auto value = get<double>(name).value_or(want);
    if (value == want) return;
    refuse(fmt::format("key '{}' is {}, but {} is what fits the model", key(name), value, want));
  }

  // The keys of the architecture, without its name.
  std::vector<std::pair<std::string_view, GgufMetadata::Value>> keys() const {
    std::vector<std::pair<std::string_view, GgufMetadata::Value>> found;
    const auto prefix = key("");
    for (const auto& [name, value] : metadata_.values()) {
      if (name.starts_with(prefix)) found.emplace_back(name.substr(prefix.size()), value);
    }
    return found;
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

// The keys that llama.cpp can do without.
bool is_optional(std::string_view key) {
  return key == "attention.head_count_kv" || key == "attention.key_length";
}

void read_number(const Reader& reader, std::string_view key, int64_t& into) {
  into = is_optional(key) ? reader.get<int64_t>(key).value_or(into) : reader.require<int64_t>(key);
}

void read_number(const Reader& reader, std::string_view key, double& into) {
  into = reader.decimal(key).value_or(into);
}

// Absent: as the family has it; 0: none.
void read_number(const Reader& reader, std::string_view key, std::optional<double>& into) {
  const auto value = reader.decimal(key);
  if (!value) return;
  into = *value > 0 ? value : std::nullopt;
}

// What stands in the file as in the config.
void read_plain(const Reader& reader, GemmaConfig& config) {
  visit_fields<GemmaConfig>([&](const auto& field) {
    if constexpr (requires { read_number(reader, field.gguf, config.*field.member); }) {
      if (!field.gguf.empty() && field.since <= config.architecture) {
        read_number(reader, field.gguf, config.*field.member);
      }
    }
  });
  if (!reader.get<int64_t>("attention.head_count_kv")) {
    config.num_key_value_heads = config.num_attention_heads;
  }
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

// The first of these keys that the file has.
std::optional<int64_t> first_whole(const Reader& reader, std::initializer_list<const char*> names) {
  for (const auto* name : names) {
    if (const auto value = reader.whole(name)) return value;
  }
  return std::nullopt;
}

// By how much positions are divided: as llama.cpp has it, which assumes linear scaling.
int64_t rope_factor(const Reader& reader) {
  const auto type = reader.get<std::string>("rope.scaling.type").value_or("linear");
  if (type == "none") return 1;
  if (type != "linear") {
    reader.refuse(fmt::format("key '{}.rope.scaling.type' is '{}'; none and linear are read",
                              reader.architecture(), printable(type)));
  }
  for (const auto* name : {"rope.scaling.factor", "rope.scale_linear"}) {
    const auto factor = reader.get<double>(name);
    if (factor.value_or(0) != 0) return *reader.whole(name);
  }
  return 1;
}

void read_rotary(const Reader& reader, GemmaConfig& config) {
  // Ollama's names are the second ones.
  const auto base = first_whole(reader, {"rope.freq_base", "rope.global.freq_base"});
  const auto local = first_whole(reader, {"rope.freq_base_swa", "rope.local.freq_base"});
  const auto factor = rope_factor(reader);
  if (config.architecture != Architecture::kGemma3) {
    if (base.value_or(kTheta) != kTheta || local.value_or(kTheta) != kTheta || factor != 1) {
      reader.refuse(fmt::format(
          "key '{}.rope.freq_base' is {}, of local layers {}, and its scale "
          "{}, but Gemma 1 and 2 have {} and 1",
          reader.architecture(), base.value_or(kTheta), local.value_or(kTheta), factor, kTheta));
    }
    return;
  }
  config.rope_wave_length = std::map<AttentionType, int64_t>{{kLocal, local.value_or(kTheta)},
                                                             {kGlobal, base.value_or(1'000'000)}};
  if (factor != 1) config.rope_scaling_factor = factor;
}

// Keys that may be there and have to agree with the others.
void check_lengths(const Reader& reader, const GemmaConfig& config) {
  const auto length = static_cast<double>(config.head_dim);
  for (const auto* name : {"rope.dimension_count", "rope.dimension_count_swa",
                           "attention.key_length_swa", "attention.value_length_swa"}) {
    reader.expect(name, length);
  }
  reader.expect("rope.scaling.attn_factor", 1);
  if (!reader.get<bool>("attention.causal").value_or(true)) {
    reader.refuse(
        fmt::format("key '{}.attention.causal' is false: a model that embeds text and "
                    "does not continue it",
                    reader.architecture()));
  }
}

// Read beside the plain ones.
constexpr std::array<std::string_view, 19> kRead = {
    "attention.value_length", "rope.freq_base", "rope.freq_base_swa", "rope.global.freq_base",
    "rope.local.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
    "rope.dimension_count", "rope.dimension_count_swa", "attention.key_length_swa",
    "attention.value_length_swa", "rope.scaling.attn_factor", "attention.causal",
    // Of no effect: what was before training, and what the embedding says anyway.
    "vocab_size", "rope.scaling.original_context_length", "rope.scaling.finetuned",
    "attention.layer_norm_epsilon", "attention.scale"};
constexpr std::array<std::string_view, 2> kReadSinceGemma2 = {"attention.sliding_window",
                                                              "attention.sliding_window_pattern"};
// The picture part, which is a model of its own.
constexpr std::array<std::string_view, 2> kPictures = {"vision.", "mm."};

bool is_neutral(const Reader& reader, std::string_view name, const GgufMetadata::Value& value) {
  switch (value.type) {
    case GgufType::kBool:
      return !*reader.get<bool>(name);
    case GgufType::kString:
      return reader.get<std::string>(name)->empty() || reader.get<std::string>(name) == "none";
    case GgufType::kArray:
      return value.count == 0;
    default:
      return *reader.get<double>(name) == 0;
  }
}

// Keys that nothing here reads, and that say of a model what Gemma's are not.
void check_others(const Reader& reader, Architecture architecture) {
  std::vector<std::string_view> known(kRead.begin(), kRead.end());
  visit_fields<GemmaConfig>([&](const auto& field) {
    if (field.since <= architecture) known.push_back(field.gguf);
  });
  if (architecture != Architecture::kGemma1) {
    known.insert(known.end(), kReadSinceGemma2.begin(), kReadSinceGemma2.end());
  }
  for (const auto& [name, value] : reader.keys()) {
    const auto begins = [&key = name](std::string_view part) { return key.starts_with(part); };
    if (std::ranges::count(known, name) > 0 || std::ranges::any_of(kPictures, begins)) continue;
    if (is_neutral(reader, name, value)) continue;
    reader.refuse(fmt::format("key '{}.{}' is set, which no Gemma 1, 2 or 3 has",
                              reader.architecture(), printable(name)));
  }
}

// What queries are multiplied by, where a file says it at all.
void check_query_scale(const Reader& reader, const GemmaConfig& config) {
  const auto given = reader.get<double>("attention.scale").value_or(0);
  const auto scalar = config.query_pre_attn_scalar.value_or(config.head_dim);
  const auto want = 1 / std::sqrt(static_cast<double>(scalar));
  if (given == 0 || std::abs(given - want) < 1e-6 * want) return;
  reader.refuse(fmt::format("key '{}.attention.scale' is {}, but {} is what fits the model",
                            reader.architecture(), given, want));
}

// A factor for each frequency, which other models have; that of Gemma is 1.
void check_rope_table(const Reader& reader, const Checkpoint& checkpoint) {
  constexpr auto kTable = "rope_freqs.weight";
  if (!checkpoint.contains(kTable)) return;
  const auto table = checkpoint.tensor(kTable).to(at::kFloat);
  if (at::equal(table, at::ones_like(table))) return;
  reader.refuse(
      fmt::format("tensor '{}' is not all 1: positions are turned as no Gemma turns them", kTable));
}

}  // namespace

GemmaConfig gguf_config(const Checkpoint& checkpoint, const std::string& dtype) {
  if (checkpoint.metadata() == nullptr) {
    refuse_file(checkpoint.path(), "is not a GGUF file");
  }
  const Reader reader(*checkpoint.metadata());
  auto config = family(reader, dtype);
  read_plain(reader, config);
  const auto* const embedding = checkpoint.find("token_embd.weight");
  if (embedding == nullptr || embedding->sizes.size() != 2) {
    reader.refuse("has no matrix 'token_embd.weight': is it a part of a model?");
  }
  config.vocab_size = embedding->sizes[0];
  if (config.architecture != Architecture::kGemma1) read_attention_types(reader, config);
  read_rotary(reader, config);
  check_lengths(reader, config);
  check_others(reader, config.architecture);
  check_rope_table(reader, checkpoint);
  config.tokenizer = checkpoint.path();
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    reader.refuse(error.what());
  }
  config.query_pre_attn_scalar = gguf_query_scalar(config);
  check_query_scale(reader, config);
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
