#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/gguf_writer.h>
#include <gemma/config/dtype_name.h>
#include <gemma/config/fields.h>
#include <gemma/convert/convert.h>
#include <gemma/convert/gguf_export.h>
#include <gemma/weights/gguf/gguf_config.h>
#include <gemma/weights/gguf/gguf_layout.h>

namespace gemma {
namespace {

using Metadata = std::vector<std::pair<std::string, GgufValue>>;

std::string_view architecture_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::kGemma1:
      return "gemma";
    case Architecture::kGemma2:
      return "gemma2";
    case Architecture::kGemma3:
      break;
  }
  return "gemma3";
}

// One tensor of the file that is written.
struct Step {
  const TensorEntry* source;
  GgufPart part;
  GgufTensor tensor;
};

GgufTensor tensor_of(const TensorEntry& entry, const GgufPart& part, const GgufOptions& options) {
  auto sizes = entry.sizes;
  sizes[0] = part.rows;
  GgufTensor tensor{.name = part.name, .sizes = std::move(sizes), .dtype = at::kFloat};
  if (part.is_norm) return tensor;
  if (options.q8_0) {
    tensor.encoding = Encoding::kQ8_0;
  } else {
    // No model computes in float64.
    tensor.dtype = options.dtype.value_or(entry.dtype == at::kDouble ? at::kFloat : entry.dtype);
  }
  return tensor;
}

std::vector<Step> plan(const WeightSource& source,
                       const GemmaConfig& config,
                       const GgufOptions& options) {
  std::vector<Step> steps;
  for (const auto& entry : source.entries()) {
    if (is_rope_table(entry.name)) continue;
    if (!c10::isFloatingType(entry.dtype)) {
      refuse_file(
          source.file_of(entry.name),
          fmt::format("tensor '{}' is {}; start from the file in floats that it was made from",
                      entry.name, dtype_name(entry.dtype)));
    }
    const auto parts = entry.sizes.empty() ? std::vector<GgufPart>{}
                                           : gguf_parts(config, entry.name, entry.sizes[0]);
    if (parts.empty()) {
      refuse_file(
          source.file_of(entry.name),
          fmt::format("tensor '{}' [{}] has no place in a GGUF file of {}; only text models are "
                      "written",
                      entry.name, fmt::join(entry.sizes, ", "), to_string(config.architecture)));
    }
    for (const auto& part : parts) {
      steps.push_back({&entry, part, tensor_of(entry, part, options)});
    }
  }
  return steps;
}

// The file need not say which layers are local where this is the family's pattern.
bool has_usual_pattern(const GemmaConfig& config) {
  const int64_t period = config.architecture == Architecture::kGemma2 ? 2 : 6;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if ((config.attn_type(i) == AttentionType::kGlobal) != ((i + 1) % period == 0)) return false;
  }
  return true;
}

void add_attention(Metadata& metadata, const std::string& prefix, const GemmaConfig& config) {
  if (config.architecture == Architecture::kGemma1) return;
  const auto window = config.attn_types ? config.sliding_window_size.value_or(0) : 0;
  metadata.emplace_back(prefix + "attention.sliding_window", static_cast<uint32_t>(window));
  if (window > 0 && !has_usual_pattern(config)) {
    std::vector<bool> is_local;
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      is_local.push_back(config.attn_type(i) == AttentionType::kLocalSliding);
    }
    metadata.emplace_back(prefix + "attention.sliding_window_pattern", std::move(is_local));
  }
}

void add_rotary(Metadata& metadata, const std::string& prefix, const GemmaConfig& config) {
  if (config.architecture != Architecture::kGemma3) return;
  for (const auto& [type, base] : *config.rope_wave_length) {
    const auto* const key =
        type == AttentionType::kGlobal ? "rope.freq_base" : "rope.freq_base_swa";
    metadata.emplace_back(prefix + key, static_cast<float>(base));
  }
  if (config.rope_scaling_factor) {
    metadata.emplace_back(prefix + "rope.scaling.type", std::string("linear"));
    metadata.emplace_back(prefix + "rope.scaling.factor",
                          static_cast<float>(*config.rope_scaling_factor));
  }
}

// ggml's numbers of what most of a file is: LLAMA_FTYPE_*.
uint32_t file_type(torch::Dtype dtype, bool q8_0) {
  if (q8_0) return 7;
  return dtype == at::kFloat ? 0 : dtype == at::kHalf ? 1 : 32;
}

void add_number(Metadata& metadata, std::string key, Architecture, int64_t value) {
  metadata.emplace_back(std::move(key), static_cast<uint32_t>(value));
}

void add_number(Metadata& metadata, std::string key, Architecture, double value) {
  metadata.emplace_back(std::move(key), static_cast<float>(value));
}

// llama.cpp assumes caps of Gemma 2; 0 is none.
void add_number(Metadata& metadata,
                std::string key,
                Architecture architecture,
                const std::optional<double>& value) {
  if (!value && architecture != Architecture::kGemma2) return;
  metadata.emplace_back(std::move(key), static_cast<float>(value.value_or(0)));
}

void add_config(Metadata& metadata, const GemmaConfig& config) {
  const auto architecture = config.architecture;
  const auto prefix = fmt::format("{}.", architecture_name(architecture));
  visit_fields<GemmaConfig>([&](const auto& field) {
    const auto& value = config.*field.member;
    if constexpr (requires { add_number(metadata, prefix, architecture, value); }) {
      if (field.gguf.empty() || field.since > architecture) return;
      add_number(metadata, fmt::format("{}{}", prefix, field.gguf), architecture, value);
    }
  });
  add_number(metadata, prefix + "attention.value_length", architecture, config.head_dim);
  add_attention(metadata, prefix, config);
  add_rotary(metadata, prefix, config);
}

// What llama.cpp's converters do to user-defined pieces.
std::string with_blanks(std::string text) {
  constexpr std::string_view kVisible = "▁";
  for (auto at = text.find(kVisible); at != std::string::npos; at = text.find(kVisible, at)) {
    text.replace(at, kVisible.size(), " ");
  }
  return text;
}

void add_tokenizer(Metadata& metadata, const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const auto& [text, score, type] : tokenizer.pieces()) {
    texts.push_back(type == PieceType::kUserDefined ? with_blanks(text) : text);
    scores.push_back(score);
    types.push_back(static_cast<int32_t>(type));
  }
  // A row of the embedding without a piece: llama.cpp wants a token for each.
  for (auto id = std::ssize(texts); id < vocab_size; ++id) {
    texts.push_back(fmt::format("[PAD{}]", id));
    scores.push_back(-1000);
    types.push_back(static_cast<int32_t>(PieceType::kUnused));
  }
  const auto add_id = [&](const char* key, int64_t id) {
    metadata.emplace_back(key, static_cast<uint32_t>(id));
  };
  const auto unknown = tokenizer.piece_to_id("<unk>");
  const auto end_of_turn = tokenizer.piece_to_id("<end_of_turn>");
  metadata.emplace_back("tokenizer.ggml.model", std::string("llama"));
  metadata.emplace_back("tokenizer.ggml.pre", std::string("default"));
  metadata.emplace_back("tokenizer.ggml.tokens", std::move(texts));
  metadata.emplace_back("tokenizer.ggml.scores", std::move(scores));
  metadata.emplace_back("tokenizer.ggml.token_type", std::move(types));
  add_id("tokenizer.ggml.bos_token_id", tokenizer.bos_id());
  add_id("tokenizer.ggml.eos_token_id", tokenizer.eos_id());
  add_id("tokenizer.ggml.unknown_token_id", unknown);
  add_id("tokenizer.ggml.padding_token_id", tokenizer.pad_id());
  if (end_of_turn != unknown) add_id("tokenizer.ggml.eot_token_id", end_of_turn);
  metadata.emplace_back("tokenizer.ggml.add_bos_token", true);
  metadata.emplace_back("tokenizer.ggml.add_eos_token", false);
  metadata.emplace_back("tokenizer.ggml.add_space_prefix", false);
}

torch::Tensor made(const WeightSource& source, const Step& step) {
  const auto part = source.tensor(step.source->name).narrow(0, step.part.first, step.part.rows);
  return step.part.is_norm ? part.to(at::kFloat) + 1 : part.to(step.tensor.dtype);
}

void check(const WeightSource& source, const GemmaConfig& config, const Tokenizer& tokenizer) {
  if (config.query_pre_attn_scalar != gguf_query_scalar(config)) {
    refuse_file(source.path(), "scales its queries as no model does that GGUF knows");
  }
  if (tokenizer.n_words() > config.vocab_size) {
    refuse_file(
        source.path(),
        fmt::format("has {} rows of embedding, but the tokenizer {} pieces: is it the model's?",
                    config.vocab_size, tokenizer.n_words()));
  }
}

}  // namespace

uint64_t export_gguf(const WeightSource& source,
                     const GemmaConfig& config,
                     const Tokenizer& tokenizer,
                     const std::filesystem::path& path,
                     const GgufOptions& options,
                     const ProgressCallback& progress) {
  const torch::NoGradGuard no_grad;
  check(source, config, tokenizer);
  source.check_complete();
  const auto steps = plan(source, config, options);
  LoadProgress state{.tensor = {},
                     .tensors_done = 0,
                     .tensors_total = static_cast<int64_t>(steps.size()),
                     .bytes_done = 0,
                     .bytes_total = 0};
  std::vector<GgufTensor> tensors;
  for (const auto& step : steps) tensors.push_back(step.tensor);
  for (const auto& entry : source.entries())
    state.bytes_total += static_cast<int64_t>(entry.nbytes);

  const auto* const embedding = source.find("embedder.weight");
  if (embedding == nullptr) refuse_file(source.path(), "has no tensor 'embedder.weight'");
  Metadata metadata{
      {"general.architecture", std::string(architecture_name(config.architecture))},
      {"general.type", std::string("model")},
      {"general.quantization_version", uint32_t{2}},
      {"general.file_type", file_type(options.dtype.value_or(embedding->dtype), options.q8_0)}};
  add_config(metadata, config);
  add_tokenizer(metadata, tokenizer, config.vocab_size);

  GgufWriter writer(path, metadata, std::move(tensors), options.overwrite);
  for (const auto& step : steps) {
    writer.add(step.tensor.name, made(source, step));
    const bool is_last_part = step.part.first + step.part.rows == step.source->sizes[0];
    if (is_last_part) {
      source.release(step.source->name);
      state.bytes_done += static_cast<int64_t>(step.source->nbytes);
    }
    state.tensor = step.tensor.name;
    ++state.tensors_done;
    if (progress) progress(state);
  }
  writer.finish();
  return writer.size();
}

}  // namespace gemma
