#pragma once

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include <gemma/config/griffin_config.h>
#include <gemma/config/paligemma_config.h>
#include <gemma/models/engine_model.h>
#include <gemma/weights/weight_source.h>

namespace gemma::cli {

/// The flags that say which model runs, and how.
struct ModelOptions {
  std::string ckpt;
  std::string variant;    // Empty: detected from the checkpoint.
  std::string tokenizer;  // Empty: tokenizer.model beside the checkpoint.
  bool with_tokenizer = true;
  bool takes_paligemma = false;       // Besides a Gemma.
  bool takes_recurrentgemma = false;  // Likewise.
  std::string device = "cpu";
  std::string numerics;       // Empty: fast on the CPU, exact elsewhere.
  std::string dtype;          // Empty: the checkpoint's if fast, float32 if exact.
  std::optional<bool> quant;  // None: detected from the checkpoint.
  std::string kv_dtype = "float32";
  int threads = 0;  // 0: LibTorch's choice.
};

void add_model_options(CLI::App& command, ModelOptions& options);

/// What --ckpt names, opened: what it is, with nothing read of it yet.
struct OpenCheckpoint {
  WeightSource source;
  /// Of a RecurrentGemma only dtype, tokenizer and vocab_size.
  GemmaConfig config;
  /// Of a PaliGemma, whose language model is that of `config`.
  std::optional<PaliGemmaConfig> paligemma = std::nullopt;
  std::optional<recurrentgemma::GriffinConfig> recurrentgemma = std::nullopt;
};

/// config_of, which throws std::runtime_error, naming the flag, when nothing says what the weights
/// are of.
GemmaConfig find_config(const WeightSource& source, const std::string& variant);

/// Throws std::invalid_argument for a device that is unknown or not there.
torch::Device device_of(const ModelOptions& options);

Numerics numerics_of(const ModelOptions& options);

/// Throws std::invalid_argument for another dtype than float32 and bfloat16.
torch::Dtype kv_dtype_of(const ModelOptions& options);

/// Opens the checkpoint and checks every option, before anything is loaded. Throws
/// std::invalid_argument, std::runtime_error: one line that names the flag or file.
OpenCheckpoint open_checkpoint(const ModelOptions& options);

/// The model, loaded and ready, with a progress bar on a terminal; sets the number of threads.
/// Weights stay in the mapped file where they can. Throws as open_checkpoint.
EngineModel load_model(const ModelOptions& options, const OpenCheckpoint& checkpoint);
EngineModel load_model(const ModelOptions& options);

/// "--output_len,--output-len": a flag in the reference's spelling and in the usual one.
std::string both(const std::string& name);

}  // namespace gemma::cli
