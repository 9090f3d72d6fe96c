#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/hf/hf_config.h>

namespace gemma {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using AttentionTypes = std::vector<AttentionType>;

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kConfigName = "config.json";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int kMaxDepth = 32;
constexpr int64_t kMaxNumber = int64_t{1}
                               << 40;  // Products of two fit 64 bits with the dtype's size.
constexpr int64_t kMaxLayers = 10'000;
constexpr int64_t kTheta = 10'000;  // Of Gemma 1 and 2, and of Gemma 3's local layers.
constexpr int64_t kGlobalTheta = 1'000'000;
constexpr int64_t kPattern = 6;  // Of Gemma 3's layers every sixth is global.

// Rows of Gemma 3's embedding behind the vocabulary stand for no token.
constexpr int64_t kGemma3Vocabulary = 262144;
constexpr int64_t kGemma3Padded = 262208;

constexpr std::array kLayerTypes = {std::pair{kLocal, "sliding_attention"},
                                    std::pair{kGlobal, "full_attention"}};

struct Family {
  std::string_view model_type;
  std::string_view architecture;  // The class in transformers.
  GemmaConfig defaults;
};

// The defaults are those of the classes in transformers.
Family family_of(Architecture architecture) {
  if (architecture == Architecture::kGemma1) return {"gemma", "GemmaForCausalLM", GemmaConfig{}};
  GemmaConfig config{.architecture = architecture,
                     .num_hidden_layers = 26,
                     .num_attention_heads = 8,
                     .num_key_value_heads = 4,
                     .hidden_size = 2304,
                     .intermediate_size = 9216,
                     .sliding_window_size = 4096,
                     .query_pre_attn_scalar = 256,
                     .use_pre_ffw_norm = true,
                     .use_post_ffw_norm = true};
  if (architecture == Architecture::kGemma2) {
    config.final_logit_softcapping = 30.0;
    config.attn_logit_softcapping = 50.0;
    return {"gemma2", "Gemma2ForCausalLM", config};
  }
  config.vocab_size = kGemma3Vocabulary;
  config.max_position_embeddings = 131072;
  config.rope_wave_length = {{kLocal, kTheta}, {kGlobal, kGlobalTheta}};
  config.use_qk_norm = true;
  return {"gemma3_text", "Gemma3ForCausalLM", config};
}

// The fields of an object in the file, and what is wrong with them.
class Fields {
 public:
  Fields(const json& object, std::string path, std::string prefix = {})
      : object_(object), path_(std::move(path)), prefix_(std::move(prefix)) {}

  [[noreturn]] void refuse(std::string_view field, std::string_view what) const {
    refuse_file(path_, fmt::format("'{}{}' {}", prefix_, field, what));
  }

  // nullptr for a field that is not there, or null.
  const json* find(std::string_view field) const {
    const auto found = object_.find(field);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool is_null(std::string_view field) const {
    const auto found = object_.find(field);
    return found != object_.end() && found->is_null();
  }

  std::optional<double> number(std::string_view field) const {
    const auto* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !(value->get<double>() > 0)) {
      refuse(field, fmt::format("is {}, not a number above 0", shown(*value)));
    }
    return value->get<double>();
  }
  std::optional<int64_t> whole(std::string_view field) const {
    const auto value = number(field);
    if (!value) return std::nullopt;
    if (*value != std::floor(*value) || *value > static_cast<double>(kMaxNumber)) {
      refuse(field, fmt::format("is {}, not a whole number up to 2^40", shown(*find(field))));
    }
    return static_cast<int64_t>(*value);
  }
  std::optional<std::string> text(std::string_view field) const {
    const auto* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) refuse(field, fmt::format("is {}, not a string", shown(*value)));
    return value->get<std::string>();
  }
  bool flag(std::string_view field) const {
    const auto* value = find(field);
    if (value == nullptr) return false;
    if (!value->is_boolean()) refuse(field, fmt::format("is {}, not true or false", shown(*value)));
    return value->get<bool>();
  }
  std::optional<Fields> object(std::string_view field) const {
    const auto* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) refuse(field, fmt::format("is {}, not an object", shown(*value)));
    return Fields(*value, path_, fmt::format("{}{}.", prefix_, field));
  }

  void read(std::string_view field, int64_t& into) const { into = whole(field).value_or(into); }
  void read(std::string_view field, double& into) const { into = number(field).value_or(into); }
  // Null is none, which is not the same as a field that is not there.
  template <typename T>
  void read(std::string_view field, std::optional<T>& into) const {
    if (is_null(field)) into = std::nullopt;
    if (find(field) == nullptr) return;
    T value{};
    read(field, value);
    into = value;
  }

  static std::string shown(const json& value) {
    // With other than ASCII escaped, and not failing on bytes that are no UTF-8.
    return printable(value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace));
  }

 private:
  const json& object_;
  std::string path_, prefix_;
};

json parse(std::string_view text, const std::string& path) {
  const auto refuse = [&](std::string_view what) { refuse_file(path, what); };
  if (text.size() > kMaxConfigBytes) {
    refuse(fmt::format("it has {} bytes, more than {}", text.size(), kMaxConfigBytes));
  }
  const auto callback = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) refuse(fmt::format("it is nested more than {} deep", kMaxDepth));
    return true;
  };
  try {
    auto value = json::parse(text.begin(), text.end(), callback);
    if (!value.is_object()) refuse("it is not an object of fields");
    return value;
  } catch (const json::parse_error& error) {
    refuse_file(path, fmt::format("it is not JSON (at byte {}): download it again", error.byte));
  }
}

Architecture architecture_of(const Fields& fields, std::string_view model_type) {
  if (model_type == "gemma") return Architecture::kGemma1;
  if (model_type == "gemma2") return Architecture::kGemma2;
  if (model_type == "gemma3" || model_type == "gemma3_text") return Architecture::kGemma3;
  fields.refuse("model_type", fmt::format("is \"{}\"; valid: gemma, gemma2, gemma3_text, gemma3",
                                          printable(model_type)));
}

// What a file may say, and no model here does.
void check_is_supported(const Fields& fields) {
  const auto activation =
      fields.text("hidden_activation").value_or(fields.text("hidden_act").value_or("gelu"));
  if (!activation.starts_with("gelu")) {
    fields.refuse(fields.find("hidden_activation") ? "hidden_activation" : "hidden_act",
                  fmt::format("is \"{}\", but Gemma has gelu", printable(activation)));
  }
  if (fields.flag("attention_bias")) fields.refuse("attention_bias", "is true, but Gemma has none");
  if (fields.flag("use_bidirectional_attention")) {
    fields.refuse("use_bidirectional_attention",
                  "is true: a model that embeds text and does not continue it");
  }
  if (fields.find("quantization_config")) {
    fields.refuse("quantization_config",
                  "is there: take the model in bfloat16, float16 or float32 and quantise it by "
                  "`gemma convert --quant`");
  }
}

bool is_local(const Fields& fields, const json& type) {
  if (type == "sliding_attention") return true;
  if (type == "full_attention") return false;
  fields.refuse("layer_types", fmt::format("holds {}; valid: sliding_attention, full_attention",
                                           Fields::shown(type)));
}

AttentionTypes pattern_of(int64_t period) {
  AttentionTypes types(static_cast<size_t>(period), kLocal);
  types.back() = kGlobal;
  return types;
}

// As long as the published variants have them: all of Gemma 2's layers, one period of Gemma 3's.
AttentionTypes attention_types(const Fields& fields, const GemmaConfig& config) {
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  const bool is_gemma2 = config.architecture == Architecture::kGemma2;
  const auto period =
      is_gemma2 ? 2
                : fields.whole("sliding_window_pattern")
                      .value_or(fields.whole("_sliding_window_pattern").value_or(kPattern));
  if (period > kMaxLayers) fields.refuse("sliding_window_pattern", "is more than 10000");
  const auto pattern = pattern_of(period);
  AttentionTypes types;
  for (size_t i = 0; i < layers; ++i) types.push_back(pattern[i % pattern.size()]);
  const auto regular = types;
  if (const auto* given = fields.find("layer_types")) {
    if (!given->is_array() || given->size() != layers) {
      fields.refuse("layer_types", fmt::format("is not a list of {} types", layers));
    }
    for (size_t i = 0; i < layers; ++i) {
      types[i] = is_local(fields, (*given)[i]) ? kLocal : kGlobal;
    }
  }
  return types == regular && !is_gemma2 ? pattern : types;
}

struct Rope {
  int64_t theta;
  double factor = 1;
};

// {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}, in which old releases had no base.
void read_rope(const Fields& fields, Rope& rope) {
  const auto* const name = fields.find("type") ? "type" : "rope_type";
  const auto type = fields.text(name).value_or("default");
  if (type != "default" && type != "linear") {
    fields.refuse(name, fmt::format("is \"{}\"; valid: default, linear", printable(type)));
  }
  fields.read("rope_theta", rope.theta);
  if (type == "linear") fields.read("factor", rope.factor);
}

void check_rope(const Fields& fields, const Rope& rope, int64_t theta) {
  if (rope.theta == theta && rope.factor == 1) return;
  fields.refuse("rope_theta", fmt::format("and its scaling are {} and {}, but Gemma 1 and 2 have "
                                          "{} and 1",
                                          rope.theta, rope.factor, theta));
}

void read_rope(const Fields& fields, GemmaConfig& config) {
  const bool is_gemma3 = config.architecture == Architecture::kGemma3;
  Rope local{kTheta}, global{is_gemma3 ? kGlobalTheta : kTheta};
  fields.read("rope_theta", global.theta);
  fields.read("rope_local_base_freq", local.theta);
  if (const auto scaling = fields.object("rope_scaling")) read_rope(*scaling, global);
  if (const auto rope = fields.object("rope_parameters")) {
    const auto of_local = rope->object("sliding_attention");
    const auto of_global = rope->object("full_attention");
    if (of_local) read_rope(*of_local, local);
    if (of_global) read_rope(*of_global, global);
    if (!of_local && !of_global) read_rope(*rope, global);
  }
  if (!is_gemma3) return check_rope(fields, global, kTheta);
  if (local.factor != 1) fields.refuse("rope_parameters", "scales the local layers");
  config.rope_wave_length = {{kLocal, local.theta}, {kGlobal, global.theta}};
  if (global.factor == 1) return;
  if (global.factor != std::floor(global.factor) || global.factor > 1e6) {
    fields.refuse("factor",
                  fmt::format("of the rotary embedding is {}, not a whole number", global.factor));
  }
  config.rope_scaling_factor = static_cast<int64_t>(global.factor);
}

GemmaConfig read_text(const Fields& fields, Architecture architecture) {
  check_is_supported(fields);
  auto config = family_of(architecture).defaults;
  fields.read("vocab_size", config.vocab_size);
  if (config.vocab_size == kGemma3Padded) config.vocab_size = kGemma3Vocabulary;
  fields.read("max_position_embeddings", config.max_position_embeddings);
  fields.read("num_hidden_layers", config.num_hidden_layers);
  if (config.num_hidden_layers > kMaxLayers) fields.refuse("num_hidden_layers", "is over 10000");
  fields.read("num_attention_heads", config.num_attention_heads);
  fields.read("num_key_value_heads", config.num_key_value_heads);
  fields.read("hidden_size", config.hidden_size);
  fields.read("intermediate_size", config.intermediate_size);
  fields.read("head_dim", config.head_dim);
  fields.read("rms_norm_eps", config.rms_norm_eps);
  read_rope(fields, config);
  if (architecture == Architecture::kGemma1) return config;
  fields.read("sliding_window", config.sliding_window_size);
  fields.read("final_logit_softcapping", config.final_logit_softcapping);
  fields.read("attn_logit_softcapping", config.attn_logit_softcapping);
  fields.read("query_pre_attn_scalar", config.query_pre_attn_scalar);
  if (config.query_pre_attn_scalar == config.head_dim) config.query_pre_attn_scalar = std::nullopt;
  config.attn_types = attention_types(fields, config);
  return config;
}

SiglipVisionModelConfig read_vision(const Fields& top, const Fields& fields) {
  SiglipVisionModelConfig config;
  fields.read("num_hidden_layers", config.num_hidden_layers);
  fields.read("hidden_size", config.embedding_dim);
  fields.read("num_channels", config.input_channels);
  fields.read("image_size", config.image_size);
  fields.read("patch_size", config.conv2d_patch_size);
  fields.read("num_attention_heads", config.num_attention_heads);
  fields.read("intermediate_size", config.intermediate_size);
  fields.read("layer_norm_eps", config.layer_norm_eps);
  if (config.embedding_dim % config.num_attention_heads != 0) {
    fields.refuse("hidden_size", fmt::format("is {}, not a multiple of num_attention_heads ({})",
                                             config.embedding_dim, config.num_attention_heads));
  }
  config.head_dim = config.embedding_dim / config.num_attention_heads;
  config.num_key_value_heads = config.num_query_groups = config.num_attention_heads;
  top.read("mm_tokens_per_image", config.encoding_sequence_length);
  return config;
}

std::string dtype_of(const Fields& fields) {
  for (const auto* name : {"dtype", "torch_dtype"}) {
    const auto dtype = fields.text(name);
    if (!dtype) continue;
    if (*dtype == "float64") return "float32";  // No model computes in it.
    if (*dtype != "float32" && *dtype != "float16" && *dtype != "bfloat16") {
      fields.refuse(name,
                    fmt::format("is \"{}\"; valid: float32, float16, bfloat16", printable(*dtype)));
    }
    return *dtype;
  }
  return "float32";
}

void require(bool holds, std::string_view field, std::string_view what) {
  if (holds) return;
  throw std::invalid_argument(fmt::format(
      "config_to_hf: GemmaConfig.{} {}, which transformers does not have", field, what));
}

void check_is_theirs(const GemmaConfig& config) {
  validate(config);
  const bool is_gemma1 = config.architecture == Architecture::kGemma1;
  const bool is_gemma3 = config.architecture == Architecture::kGemma3;
  require(!config.quant, "quant", "is set");
  require(config.use_pre_ffw_norm != is_gemma1, "use_pre_ffw_norm", "is not the family's");
  require(config.use_post_ffw_norm != is_gemma1, "use_post_ffw_norm", "is not the family's");
  require(config.use_qk_norm == is_gemma3, "use_qk_norm", "is not the family's");
  if (!is_gemma1) return;
  require(!config.query_pre_attn_scalar, "query_pre_attn_scalar", "is set for Gemma 1");
  require(!config.attn_types && !config.sliding_window_size, "attn_types", "are set for Gemma 1");
  require(!config.attn_logit_softcapping && !config.final_logit_softcapping,
          "final_logit_softcapping", "or that of attention is set for Gemma 1");
}

template <typename T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

void write_rope(const GemmaConfig& config, ordered_json& out) {
  const auto theta = [&](AttentionType type) {
    if (!config.rope_wave_length) return kTheta;
    const auto found = config.rope_wave_length->find(type);
    return found == config.rope_wave_length->end() ? kTheta : found->second;
  };
  out["rope_theta"] = static_cast<double>(theta(kGlobal));
  if (config.architecture != Architecture::kGemma3) return;
  out["rope_local_base_freq"] = static_cast<double>(theta(kLocal));
  out["rope_scaling"] = nullptr;
  if (config.rope_scaling_factor) {
    out["rope_scaling"] = {{"rope_type", "linear"},
                           {"factor", static_cast<double>(*config.rope_scaling_factor)}};
  }
}

ordered_json write_text(const GemmaConfig& config) {
  ordered_json out;
  out["model_type"] = family_of(config.architecture).model_type;
  out["vocab_size"] = config.vocab_size;
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["num_hidden_layers"] = config.num_hidden_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["head_dim"] = config.head_dim;
  out["rms_norm_eps"] = config.rms_norm_eps;
  out["hidden_act"] = "gelu_pytorch_tanh";
  out["hidden_activation"] = "gelu_pytorch_tanh";
  out["attention_bias"] = false;
  out["attention_dropout"] = 0.0;
  write_rope(config, out);
  if (config.architecture == Architecture::kGemma1) return out;
  out["query_pre_attn_scalar"] = config.query_pre_attn_scalar.value_or(config.head_dim);
  out["sliding_window"] = or_null(config.sliding_window_size);
  out["final_logit_softcapping"] = or_null(config.final_logit_softcapping);
  out["attn_logit_softcapping"] = or_null(config.attn_logit_softcapping);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    for (const auto& [type, name] : kLayerTypes) {
      if (config.attn_type(i) == type) out["layer_types"].push_back(name);
    }
  }
  return out;
}

ordered_json write_vision(const SiglipVisionModelConfig& config) {
  return {{"model_type", "siglip_vision_model"},
          {"hidden_size", config.embedding_dim},
          {"intermediate_size", config.intermediate_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"num_attention_heads", config.num_attention_heads},
          {"num_channels", config.input_channels},
          {"image_size", config.image_size},
          {"patch_size", config.conv2d_patch_size},
          {"layer_norm_eps", config.layer_norm_eps},
          {"vision_use_head", false}};
}

}  // namespace

GemmaConfig config_from_hf(std::string_view text, const std::string& path) {
  const auto value = parse(text, path);
  const Fields top(value, path);
  const auto type = top.text("model_type");
  if (!type) top.refuse("model_type", "is not there; valid: gemma, gemma2, gemma3_text, gemma3");
  const auto architecture = architecture_of(top, *type);
  check_is_supported(top);
  const auto inner = *type == "gemma3" ? top.object("text_config") : std::nullopt;
  auto config = read_text(inner ? *inner : top, architecture);
  if (const auto vision = top.object("vision_config"); vision && *type == "gemma3") {
    config.vision_config = read_vision(top, *vision);
  }
  config.dtype = dtype_of(top);
  if (config.vision_config) config.vision_config->dtype = config.dtype;
  config.tokenizer = std::nullopt;
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    refuse_file(path, error.what());
  }
  return config;
}

GemmaConfig read_hf_config(const std::filesystem::path& directory) {
  const MappedFile file(directory / kConfigName);
  const auto bytes = file.bytes();
  return config_from_hf({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path());
}

bool has_hf_config(const std::filesystem::path& path) {
  std::error_code unknown;
  return std::filesystem::is_regular_file(path / kConfigName, unknown);
}

std::string config_to_hf(const GemmaConfig& config) {
  check_is_theirs(config);
  ordered_json out;
  const bool is_multimodal = config.vision_config.has_value();
  out["architectures"] = {is_multimodal ? "Gemma3ForConditionalGeneration"
                                        : family_of(config.architecture).architecture};
  const auto text = write_text(config);
  if (is_multimodal) {
    out["model_type"] = "gemma3";
    out["text_config"] = text;
    out["vision_config"] = write_vision(*config.vision_config);
    out["mm_tokens_per_image"] = config.vision_config->encoding_sequence_length;
    out["boi_token_index"] = 255999;
    out["eoi_token_index"] = 256000;
    out["image_token_index"] = 262144;
  } else {
    out.update(text);
  }
  out["dtype"] = out["torch_dtype"] = dtype_to_string(config.get_dtype());
  out["tie_word_embeddings"] = true;
  out["bos_token_id"] = 2;
  out["eos_token_id"] = 1;
  out["pad_token_id"] = 0;
  return out.dump(2) + "\n";
}

}  // namespace gemma
