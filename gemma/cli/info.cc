#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/cli/info.h>
#include <gemma/cli/output.h>
#include <gemma/config/dtype_name.h>
#include <gemma/generate/make_model.h>
#include <gemma/weights/checkpoint_config.h>

namespace gemma::cli {
namespace {

struct InfoOptions {
  std::string target;
  std::string dtype;  // Empty: the file's, or bfloat16 for a variant.
  bool quant = false;
};

// "1,234,567".
std::string grouped(int64_t number) {
  auto text = fmt::format("{}", number);
  for (auto i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) {
    text.insert(static_cast<size_t>(i), 1, ',');
  }
  return text;
}

std::string pattern_text(const GemmaConfig& config) {
  std::string text;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    text += config.attn_type(i) == AttentionType::kGlobal ? 'G' : 'L';
  }
  return text;
}

template <typename T>
std::string or_none(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "none";
}

void print_config(const GemmaConfig& config) {
  const auto row = [](const char* name, const std::string& value) {
    show("  {:<26} {}\n", name, value);
  };
  show("Config\n");
  row("architecture", std::string(to_string(config.architecture)));
  row("vocab_size", grouped(config.vocab_size));
  row("max_position_embeddings", grouped(config.max_position_embeddings));
  row("num_hidden_layers", grouped(config.num_hidden_layers));
  row("num_attention_heads", grouped(config.num_attention_heads));
  row("num_key_value_heads", grouped(config.num_key_value_heads));
  row("hidden_size", grouped(config.hidden_size));
  row("intermediate_size", grouped(config.intermediate_size));
  row("head_dim", grouped(config.head_dim));
  row("rms_norm_eps", fmt::format("{}", config.rms_norm_eps));
  row("dtype", config.dtype);
  row("quant", config.quant ? "int8" : "none");
  row("attn_types", pattern_text(config) + "  (G global, L local)");
  row("sliding_window_size", or_none(config.sliding_window_size));
  row("final_logit_softcapping", or_none(config.final_logit_softcapping));
  row("attn_logit_softcapping", or_none(config.attn_logit_softcapping));
  row("query_pre_attn_scalar", or_none(config.query_pre_attn_scalar));
  row("use_pre_ffw_norm", fmt::format("{}", config.use_pre_ffw_norm));
  row("use_post_ffw_norm", fmt::format("{}", config.use_post_ffw_norm));
  std::vector<std::string> wave_lengths;
  if (config.rope_wave_length) {
    for (const auto& [type, length] : *config.rope_wave_length) {
      wave_lengths.push_back(fmt::format("{} {}", to_string(type), length));
    }
  }
  row("rope_wave_length",
      wave_lengths.empty() ? "none" : fmt::format("{}", fmt::join(wave_lengths, ", ")));
  row("use_qk_norm", fmt::format("{}", config.use_qk_norm));
  const auto& vision = config.vision_config;
  row("vision_config",
      vision ? fmt::format("SigLIP, {} layers of {}, {} x {} pixels to {} tokens",
                           vision->num_hidden_layers, vision->embedding_dim, vision->image_size,
                           vision->image_size, vision->encoding_sequence_length)
             : "none");
  row("rope_scaling_factor", or_none(config.rope_scaling_factor));
}

struct Size {
  int64_t count = 0, bytes = 0;
};

Size size_of(const torch::nn::Module& module) {
  Size size;
  for (const auto& parameter : module.parameters()) {
    size.count += parameter.numel();
    size.bytes += static_cast<int64_t>(parameter.nbytes());
  }
  return size;
}

void print_size(const std::string& name, const Size& size) {
  show("  {:<44} {:>16} {:>18}\n", name, grouped(size.count), grouped(size.bytes));
}

// A list of layers, and what is in one of them: they are alike.
void print_layers(const std::string& name, const torch::nn::ModuleListImpl& layers) {
  print_size(fmt::format("{} (all {})", name, layers.size()), size_of(layers));
  for (const auto& child : layers.ptr(0)->named_children()) {
    print_size(fmt::format("  {}.0.{}", name, child.key()), size_of(*child.value()));
  }
}

void print_parameters(const LanguageModelImpl& model) {
  show("\nParameters\n  {:<44} {:>16} {:>18}\n", "module", "count", "bytes");
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

void print_model(GemmaConfig config) {
  print_config(config);
  // The rotary tables are no parameters and are not shown; at full length they take a while.
  config.max_position_embeddings = 1;
  config.tokenizer = std::nullopt;
  const DefaultDtypeGuard guard(config.get_dtype());
  const auto model = make_model(config);
  show("\nModules\n{}\n", to_string(*model));
  print_parameters(*model);
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
  const auto detected = detect_variant(source);
  if (detected) {
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
  auto config = config_of(source);
  if (!config) {
    show("\nTensors\n");
    print_tensors(source);
    return;
  }
  if (!dtype.empty()) config->dtype = dtype;
  show("\n");
  print_model(*std::move(config));
}

void info(const InfoOptions& options) {
  const auto variants = model_variants();
  if (std::find(variants.begin(), variants.end(), options.target) != variants.end()) {
    auto config =
        get_model_config(options.target, options.dtype.empty() ? "bfloat16" : options.dtype);
    config.quant = options.quant;
    print_model(config);
    return;
  }
  if (!std::filesystem::exists(options.target)) {
    throw std::invalid_argument(fmt::format("'{}' is neither a file nor a variant; variants: {}",
                                            options.target, fmt::join(variants, ", ")));
  }
  print_checkpoint(WeightSource::open(options.target), options.dtype);
}

}  // namespace

void add_info(CLI::App& app) {
  const auto options = std::make_shared<InfoOptions>();
  auto* command = app.add_subcommand("info", "Show what a variant or a checkpoint is.");
  command
      ->add_option("target", options->target,
                   "A variant, a .ckpt, .safetensors or .gguf file, or a directory of shards or of "
                   "Hugging Face")
      ->required();
  command->add_option("--dtype", options->dtype,
                      "What sizes are counted in: the file's, or bfloat16, when omitted");
  command->add_flag("--quant", options->quant, "Show the int8 form of a variant");
  command->callback([options] { info(*options); });
}

}  // namespace gemma::cli
