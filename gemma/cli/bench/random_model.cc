#include <algorithm>

#include <ATen/ATen.h>

#include <gemma/cli/bench/random_model.h>
#include <gemma/generate/make_model.h>

namespace gemma::cli {
namespace {

// Repeats a block of random numbers: to draw each would take longer than many a measurement.
void repeat_into(const at::Tensor& parameter, const at::Tensor& block) {
  const auto all = parameter.view(-1);
  for (int64_t begin = 0; begin < all.numel(); begin += block.numel()) {
    const auto count = std::min(block.numel(), all.numel() - begin);
    all.narrow(0, begin, count).copy_(block.narrow(0, 0, count));
  }
}

}  // namespace

LanguageModel random_model(const ModelOptions& options) {
  auto config =
      get_model_config(options.variant, options.dtype.empty() ? "bfloat16" : options.dtype);
  config.quant = options.quant.value_or(false);
  config.tokenizer = std::nullopt;
  const DefaultDtypeGuard guard(config.get_dtype());
  auto model = make_model(config);
  constexpr int64_t kBlock = int64_t{1} << 20;
  const auto floats = at::randn({kBlock}, at::kFloat).mul_(0.02).to(config.get_dtype());
  const auto bytes = at::randint(-127, 128, {kBlock}, at::kChar);
  for (const auto& parameter : model->parameters()) {
    repeat_into(parameter, parameter.scalar_type() == at::kChar ? bytes : floats);
  }
  // A scale of int8 weights makes them as large as the float ones.
  for (const auto& entry : model->named_parameters()) {
    if (entry.key().ends_with("weight_scaler")) entry.value().fill_(0.02 / 127);
  }
  model->to(device_of(options));
  model->eval();
  model->set_numerics(numerics_of(options));
  return model;
}

}  // namespace gemma::cli
