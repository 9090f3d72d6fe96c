#include <algorithm>

#include <ATen/ATen.h>

#include <gemma/cli/random_model.h>

namespace gemma::cli {
namespace {

// Repeats a block of random numbers: to draw each would take longer than many a measurement.
void fill(at::Tensor parameter) {
  constexpr int64_t kBlock = int64_t{1} << 20;
  auto all = parameter.view(-1);
  const auto size = std::min(kBlock, all.numel());
  const auto block = parameter.scalar_type() == at::kChar
                         ? at::randint(-127, 128, {size}, parameter.options())
                         : at::randn({size}, at::kFloat).mul_(0.02).to(parameter.scalar_type());
  for (int64_t begin = 0; begin < all.numel(); begin += size) {
    const auto count = std::min(size, all.numel() - begin);
    all.narrow(0, begin, count).copy_(block.narrow(0, 0, count));
  }
}

}  // namespace

GemmaForCausalLM random_model(const ModelOptions& options) {
  auto config =
      get_model_config(options.variant, options.dtype.empty() ? "bfloat16" : options.dtype);
  config.quant = options.quant.value_or(false);
  config.tokenizer = std::nullopt;
  const DefaultDtypeGuard guard(config.get_dtype());
  GemmaForCausalLM model(config);
  for (const auto& parameter : model->parameters()) fill(parameter);
  // A scale of int8 weights makes them as large as the float ones.
  if (config.quant) {
    for (const auto& entry : model->named_parameters()) {
      if (entry.key().ends_with("weight_scaler")) entry.value().fill_(0.02 / 127);
    }
  }
  model->to(device_of(options));
  model->eval();
  model->set_numerics(numerics_of(options));
  return model;
}

}  // namespace gemma::cli
