#include <functional>
#include <stdexcept>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <gemma/cli/embedding_model.h>
#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>

namespace gemma::cli {

EmbeddingGemma load_embedding_gemma(const ModelOptions& options) {
  auto config = read_embedding_gemma_config(options.ckpt);
  if (!options.dtype.empty()) config.text.dtype = options.dtype;
  if (!options.tokenizer.empty()) config.text.tokenizer = options.tokenizer;
  const auto numerics = numerics_of(options);
  if (options.threads < 0) {
    throw std::invalid_argument(
        fmt::format("--threads is {}, but must be 1 or more", options.threads));
  }
  if (options.threads > 0) at::set_num_threads(options.threads);
  const DefaultDtypeGuard guard(config.text.get_dtype());
  EmbeddingGemma model(config);
  ProgressBar bar("Loading");
  const auto report = model->load_weights(options.ckpt, {.mmap = true, .progress = std::ref(bar)});
  if (const auto warning = describe_unexpected(report); !warning.empty()) {
    note("gemma: {}: {}\n", options.ckpt, warning);
  }
  model->to(device_of(options));
  model->set_numerics(numerics);
  return model;
}

}  // namespace gemma::cli
