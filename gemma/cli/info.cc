#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/cli/griffin_info.h>
#include <gemma/cli/hf_tree.h>
#include <gemma/cli/info.h>
#include <gemma/cli/module_sizes.h>
#include <gemma/cli/output.h>
#include <gemma/config/dtype_name.h>
#include <gemma/config/fields.h>
#include <gemma/generate/make_model.h>
#include <gemma/generate/paligemma.h>
#include <gemma/models/embedding_gemma.h>
#include <gemma/models/summary.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/griffin_checkpoint.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>
#include <gemma/weights/paligemma_checkpoint.h>

namespace gemma::cli {
namespace {

struct InfoOptions {
  std::string target;
  std::string dtype;  // Empty: the file's, or bfloat16 for a variant.
  std::string tree;   // Empty, or "hf".
  bool quant = false;
};

std::string value_text(Architecture architecture) { return std::string(to_string(architecture)); }
std::string value_text(int64_t number) { return grouped(number); }
std::string value_text(double number) { return fmt::format("{}", number); }
std::string value_text(bool flag) { return fmt::format("{}", flag); }
std::string value_text(const std::string& text) { return text; }

std::string value_text(const std::map<AttentionType, int64_t>& wave_lengths) {
  std::vector<std::string> texts;
  for (const auto& [type, length] : wave_lengths) {
    texts.push_back(fmt::format("{} {}", to_string(type), length));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string value_text(const SiglipVisionModelConfig& vision) {
  return fmt::format("SigLIP, {} layers of {}, {} x {} pixels to {} tokens",
                     vision.num_hidden_layers, vision.embedding_dim, vision.image_size,
                     vision.image_size, vision.encoding_sequence_length);
}

template <typename T>
std::string value_text(const std::optional<T>& value) {
  return value ? value_text(*value) : "none";
}

// Of all layers, however short the config's list is.
std::string layers_text(const GemmaConfig& config) {
  std::string text;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    text += config.attn_type(i) == AttentionType::kGlobal ? 'G' : 'L';
  }
  return text + "  (G global, L local)";
}

void print_config(const GemmaConfig& config) {
  show("Config\n");
  visit_fields<GemmaConfig>([&](const auto& field) {
    if constexpr (std::is_same_v<decltype(field.member), decltype(&GemmaConfig::attn_types)>) {
      show("  {:<26} {}\n", field.name, layers_text(config));
    } else {
      show("  {:<26} {}\n", field.name, value_text(config.*field.member));
    }
  });
}

// A list of layers, and what is in one of them: they are alike.
void print_layers(const std::string& name, const torch::nn::ModuleListImpl& layers) {
  print_size(fmt::format("{} (all {})", name, layers.size()), size_of(layers));
  for (const auto& child : layers.ptr(0)->named_children()) {
    print_size(fmt::format("  {}.0.{}", name, child.key()), size_of(*child.value()));
  }
}

void print_parameters(const LanguageModelImpl& model) {
  print_size_header();
  for (const auto& child : model.named_children()) {
    bool has_layers = false;
    for (const auto& part : child.value()->named_children()) {
      has_layers |= part.value()->as<torch::nn::ModuleListImpl>() != nullptr;
    }
    if (!has_layers) {
      if (size_of(*child.value()).count > 0) print_size(child.key(), size_of(*child.value()));
      continue;
    }
    for (const auto& part : child.value()->named_children()) {
      const auto name = child.key() + "." + part.key();
      if (const auto* layers = part.value()->as<torch::nn::ModuleListImpl>()) {
        print_layers(name, *layers);
      } else if (size_of(*part.value()).count > 0) {
        print_size(name, size_of(*part.value()));
      }
    }
  }
  print_size("total", size_of(model));

  const auto& config = model.config();
  const auto bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads *
                               config.head_dim *
                               static_cast<int64_t>(c10::elementSize(config.get_dtype()));
  show("\nKV cache: {} bytes a token ({})\n", grouped(bytes_per_token), config.dtype);
}

// A config without what takes a while to make: rotary tables, which are no parameters and are not
// shown, and a tokenizer.
GemmaConfig for_show(GemmaConfig config) {
  config.max_position_embeddings = 1;
  config.tokenizer = std::nullopt;
  return config;
}

void print_modules(const LanguageModelImpl& model) {
  show("\nModules\n{}\n", to_string(model));
  print_parameters(model);
}

void print_model(const GemmaConfig& config) {
  print_config(config);
  const DefaultDtypeGuard guard(config.get_dtype());
  print_modules(*make_model(for_show(config)));
}

void print_paligemma(PaliGemmaConfig config, const std::string& dtype) {
  if (!dtype.empty()) config.text_config.dtype = config.vision_config.dtype = dtype;
  auto shown = config.text_config;
  shown.vision_config = config.vision_config;
  print_config(shown);
  show("  {:<26} {}\n", "image_token_id", value_text(config.image_token_id));
  config.text_config = for_show(config.text_config);
  const DefaultDtypeGuard guard(config.text_config.get_dtype());
  print_modules(*PaliGemmaForConditionalGeneration(config));
}

void print_embedding(EmbeddingGemmaConfig config) {
  print_config(config.text);
  show("  {:<26} {}\n", "dense_features", fmt::join(config.dense_features, ", "));
  std::vector<std::string> names;
  for (const auto& [name, _] : config.prompts) names.push_back(name);
  show("  {:<26} {}\n", "prompts", fmt::join(names, ", "));
  show("  {:<26} {}\n", "default_prompt_name", value_text(config.default_prompt_name));
  config.text.max_position_embeddings = 1;
  config.text.tokenizer = std::nullopt;
  const DefaultDtypeGuard guard(config.text.get_dtype());
  const EmbeddingGemma model(config);
  show("\nModules\n{}\n", to_string(*model));
  print_size_header();
  for (const auto& child : model->named_children()) {
    print_size(child.key(), size_of(*child.value()));
  }
  print_size("total", size_of(*model));
}

// "BFloat16", or "Q8_0" of a GGUF file.
std::string kind_of(const TensorEntry& entry) {
  return entry.encoding == Encoding::kPlain ? std::string(dtype_name(entry.dtype))
                                            : std::string(block_format(entry.encoding).name);
}

void print_file(const WeightSource& source) {
  std::map<std::string, Size> by_dtype;
  for (const auto& entry : source.entries()) {
    auto& size = by_dtype[kind_of(entry)];
    size.count += 1;
    size.bytes += static_cast<int64_t>(entry.nbytes);
  }
  show("File {} ({}'s names)\n", source.path(), source.layout());
  for (const auto& [dtype, size] : by_dtype) {
    show("  {} tensors of {}, {} bytes\n", size.count, dtype, grouped(size.bytes));
  }
  if (const auto* metadata = source.checkpoint().metadata()) {
    show("  GGUF, {} keys, {} a tokenizer\n", metadata->values().size(),
         metadata->contains("tokenizer.ggml.tokens") ? "with" : "without");
  }
  const auto family = family_of(source);
  const auto detected = detect_variant(source);
  if (family && *family != Family::kGemma) {
    show("  family {}\n", family_row(*family).name);
  } else if (detected) {
    show("  variant {}{}\n", detected->variant, detected->quant ? ", int8" : "");
  } else {
    show("  no variant: {}\n", why_unknown(source));
  }
}

void print_tensors(const WeightSource& source) {
  for (const auto& entry : source.entries()) {
    show("  {:<60} {:<10} [{}]\n", entry.name, kind_of(entry), fmt::join(entry.sizes, ", "));
  }
}

void print_checkpoint(const WeightSource& source, const std::string& dtype) {
  print_file(source);
  const auto family = family_of(source).value_or(Family::kGemma);
  if (family == Family::kRecurrentGemma) {
    show("\n");
    print_griffin(recurrentgemma::griffin_config_of(source),
                  dtype.empty() ? recurrentgemma::griffin_dtype_of(source) : dtype);
    return;
  }
  if (family == Family::kPaliGemma) {
    show("\n");
    print_paligemma(paligemma_config_of(source), dtype);
    return;
  }
  if (family == Family::kEmbeddingGemma && has_sentence_transformer(source.path())) {
    auto config = read_embedding_gemma_config(source.path());
    if (!dtype.empty()) config.text.dtype = dtype;
    show("\n");
    return print_embedding(std::move(config));
  }
  auto config = family == Family::kGemma ? config_of(source) : std::nullopt;
  if (!config) {
    show("\nTensors\n");
    print_tensors(source);
    return;
  }
  if (!dtype.empty()) config->dtype = dtype;
  show("\n");
  print_model(*std::move(config));
}

bool is_variant(const std::string& name) {
  const auto variants = model_variants();
  return std::ranges::find(variants, name) != variants.end();
}

// The tree alone.
void print_hf_tree(const std::string& target) {
  show("{}",
       hf_tree(is_variant(target) ? get_model_config(target) : config_from_pretrained(target)));
}

void info(const InfoOptions& options) {
  if (!options.tree.empty()) return print_hf_tree(options.target);
  if (const auto preset = griffin_preset(options.target)) {
    print_griffin(recurrentgemma::GriffinConfig::from_preset(*preset),
                  options.dtype.empty() ? "bfloat16" : options.dtype);
    return;
  }
  const auto paligemmas = paligemma_variants();
  if (std::ranges::count(paligemmas, options.target) > 0) {
    print_paligemma(get_paligemma_config(options.target), options.dtype);
    return;
  }
  if (is_variant(options.target)) {
    auto config =
        get_model_config(options.target, options.dtype.empty() ? "bfloat16" : options.dtype);
    config.quant = options.quant;
    print_model(config);
    return;
  }
  if (!std::filesystem::exists(options.target)) {
    throw std::invalid_argument(
        fmt::format("'{}' is neither a file nor a variant; variants: {}; of RecurrentGemma: {}; of "
                    "PaliGemma: {}",
                    options.target, fmt::join(model_variants(), ", "),
                    fmt::join(griffin_presets(), ", "), fmt::join(paligemmas, ", ")));
  }
  print_checkpoint(WeightSource::open(options.target), options.dtype);
}

}  // namespace

void add_info(CLI::App& app) {
  const auto options = std::make_shared<InfoOptions>();
  auto* command = app.add_subcommand("info", "Show what a variant or a checkpoint is.");
  command
      ->add_option(
          "target", options->target,
          "A variant, a .ckpt, .pt, .safetensors or .gguf file, or a directory of shards or "
          "of Hugging Face")
      ->required();
  command->add_option("--dtype", options->dtype,
                      "What sizes are counted in: the file's, or bfloat16, when omitted");
  command->add_flag("--quant", options->quant, "Show the int8 form of a variant");
  command
      ->add_option("--tree", options->tree,
                   "hf: show the modules alone, as transformers prints a Gemma 1")
      ->check(CLI::IsMember({"hf"}));
  command->callback([options] { info(*options); });
}

}  // namespace gemma::cli
