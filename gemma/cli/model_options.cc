#include <stdexcept>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>
#include <gemma/generate/make_model.h>
#include <gemma/generate/paligemma.h>
#include <gemma/models/griffin.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/griffin_checkpoint.h>
#include <gemma/weights/load_tokenizer.h>
#include <gemma/weights/paligemma_checkpoint.h>

namespace gemma::cli {
namespace {

std::string find_tokenizer(const ModelOptions& options, const WeightSource& source) {
  if (!options.tokenizer.empty()) return options.tokenizer;
  const auto found = tokenizer_of(source);
  if (!found) {
    throw std::runtime_error(fmt::format(
        "{}: no tokenizer.model or tokenizer.json beside it; name the model's with --tokenizer",
        options.ckpt));
  }
  return *found;
}

GemmaConfig make_config(const ModelOptions& options,
                        const WeightSource& source,
                        GemmaConfig config) {
  const bool is_exact = numerics_of(options) == Numerics::kExact;
  if (!options.dtype.empty() || is_exact) {
    config.dtype = options.dtype.empty() ? "float32" : options.dtype;
  }
  config.get_dtype();  // Throws for one that is unknown.
  config.quant = options.quant.value_or(config.quant);
  config.tokenizer =
      options.with_tokenizer ? std::optional(find_tokenizer(options, source)) : std::nullopt;
  return config;
}

// What a RecurrentGemma shares with a Gemma.
GemmaConfig shared_config(const ModelOptions& options,
                          const WeightSource& source,
                          const recurrentgemma::GriffinConfig& griffin) {
  if (numerics_of(options) == Numerics::kExact) {
    throw std::invalid_argument(
        "--numerics exact: those of a RecurrentGemma are gemma_libtorch.recurrentgemma's; use "
        "--numerics fast on the CPU");
  }
  if (!options.variant.empty() || options.quant) {
    throw std::invalid_argument("--variant and --quant are for a Gemma, not for a RecurrentGemma");
  }
  GemmaConfig config;
  config.dtype = recurrentgemma::griffin_dtype_of(source);
  config.vocab_size = griffin.vocab_size;
  return config;
}

EngineModel make_paligemma(PaliGemmaConfig config, const GemmaConfig& text_config) {
  config.text_config = text_config;
  config.vision_config.dtype = text_config.dtype;
  return PaliGemmaForConditionalGeneration(config);
}

EngineModel make(const OpenCheckpoint& checkpoint, const GemmaConfig& config) {
  if (checkpoint.recurrentgemma) return recurrentgemma::Griffin(*checkpoint.recurrentgemma);
  if (checkpoint.paligemma) return make_paligemma(*checkpoint.paligemma, config);
  return make_model(config);
}

LoadReport load_weights(torch::nn::Module& model,
                        const OpenCheckpoint& checkpoint,
                        Numerics numerics) {
  ProgressBar bar("Loading");
  return gemma::load_weights(
      model, checkpoint.source,
      {.mmap = true, .keep_blocks = numerics == Numerics::kFast, .progress = std::ref(bar)});
}

}  // namespace

GemmaConfig find_config(const WeightSource& source, const std::string& variant) {
  auto config = config_of(source, variant);
  if (!config) {
    throw std::runtime_error(fmt::format("{}: {}; name a variant with --variant: {}", source.path(),
                                         why_unknown(source), fmt::join(model_variants(), ", ")));
  }
  return *std::move(config);
}

torch::Device device_of(const ModelOptions& options) {
  const auto& name = options.device;
  const auto device = [&]() -> std::optional<torch::Device> {
    try {
      return torch::Device(name);
    } catch (const c10::Error&) {
      return std::nullopt;
    }
  }();
  if (!device || !(device->is_cpu() || device->is_cuda())) {
    throw std::invalid_argument(
        fmt::format("--device '{}' is unknown; valid devices: cpu, cuda, cuda:N", name));
  }
  if (device->is_cuda() && !at::hasCUDA()) {
    throw std::invalid_argument(
        fmt::format("--device {}: LibTorch finds no CUDA GPU here; use --device cpu", name));
  }
  return *device;
}

Numerics numerics_of(const ModelOptions& options) {
  const auto device = device_of(options);
  if (options.numerics.empty()) return device.is_cpu() ? Numerics::kFast : Numerics::kExact;
  const auto numerics = numerics_from_string(options.numerics);
  if (numerics == Numerics::kFast && !device.is_cpu()) {
    throw std::invalid_argument(fmt::format(
        "--numerics fast computes on the CPU only, not on {}; use --numerics exact", device.str()));
  }
  return numerics;
}

torch::Dtype kv_dtype_of(const ModelOptions& options) {
  if (options.kv_dtype == "float32") return torch::kFloat32;
  if (options.kv_dtype == "bfloat16") return torch::kBFloat16;
  throw std::invalid_argument(
      fmt::format("--kv_dtype is '{}', but must be float32 or bfloat16", options.kv_dtype));
}

OpenCheckpoint open_checkpoint(const ModelOptions& options) {
  numerics_of(options);
  kv_dtype_of(options);
  if (!options.dtype.empty()) dtype_from_string(options.dtype);
  if (options.threads < 0) {
    throw std::invalid_argument(
        fmt::format("--threads is {}, but must be 1 or more", options.threads));
  }
  auto source = WeightSource::open(options.ckpt);
  if (options.takes_recurrentgemma && family_of(source) == Family::kRecurrentGemma) {
    auto griffin = recurrentgemma::griffin_config_of(source);
    auto config = make_config(options, source, shared_config(options, source, griffin));
    return {.source = std::move(source),
            .config = std::move(config),
            .recurrentgemma = std::move(griffin)};
  }
  std::optional<PaliGemmaConfig> paligemma;
  if (options.takes_paligemma && family_of(source) == Family::kPaliGemma) {
    paligemma = paligemma_config_of(source);
  }
  auto config = make_config(
      options, source, paligemma ? paligemma->text_config : find_config(source, options.variant));
  return {std::move(source), std::move(config), std::move(paligemma)};
}

EngineModel load_model(const ModelOptions& options) {
  return load_model(options, open_checkpoint(options));
}

EngineModel load_model(const ModelOptions& options, const OpenCheckpoint& checkpoint) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  auto config = checkpoint.config;
  config.tokenizer = std::nullopt;
  const DefaultDtypeGuard guard(config.get_dtype());
  auto model = make(checkpoint, config);
  if (checkpoint.config.tokenizer) {
    model->set_tokenizer(load_tokenizer(checkpoint.config, checkpoint.source));
  }
  const auto report = load_weights(*model, checkpoint, numerics_of(options));
  if (const auto warning = describe_unexpected(report); !warning.empty()) {
    note("gemma: {}: {}\n", options.ckpt, warning);
  }
  model->to(device_of(options));
  model->eval();
  model->set_numerics(numerics_of(options));
  return model;
}

std::string both(const std::string& name) {
  auto hyphens = name;
  for (auto& c : hyphens) {
    if (c == '_') c = '-';
  }
  return name == hyphens ? "--" + name : fmt::format("--{},--{}", name, hyphens);
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--ckpt", options.ckpt,
                  "Checkpoint: a .ckpt, .safetensors or .gguf file, or a directory of shards or of "
                  "Hugging Face")
      ->required();
  command.add_option("--variant", options.variant,
                     "Model variant; detected from the checkpoint when omitted");
  command.add_option(
      "--tokenizer", options.tokenizer,
      "SentencePiece model or tokenizer.json; that in a GGUF file, or beside the checkpoint, when "
      "omitted");
  command.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
  command.add_option("--numerics", options.numerics,
                     "fast (own kernels, float32 arithmetic; default on the CPU) or exact (the "
                     "reference's results, bit for bit)");
  command.add_option("--dtype", options.dtype,
                     "float32, bfloat16 or float16; when omitted the checkpoint's if fast, else "
                     "float32");
  command
      .add_option(both("kv_dtype"), options.kv_dtype,
                  "Of keys and values in fast numerics: float32 or bfloat16")
      ->capture_default_str();
  command.add_flag_callback(
      "--quant", [&options] { options.quant = true; }, "The checkpoint has int8 weights");
  command.add_flag_callback(
      "--noquant", [&options] { options.quant = false; }, "It has float weights");
  command.add_option("--threads", options.threads, "CPU threads; LibTorch's choice when omitted");
}

}  // namespace gemma::cli
