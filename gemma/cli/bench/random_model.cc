#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>

#include <gemma/cli/bench/random_model.h>
#include <gemma/cli/griffin_info.h>
#include <gemma/generate/make_model.h>
#include <gemma/models/griffin.h>

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

EngineModel empty_model(const ModelOptions& options) {
  if (const auto preset = griffin_preset(options.variant)) {
    if (options.quant.value_or(false) || numerics_of(options) == Numerics::kExact) {
      throw std::invalid_argument(
          "bench: a RecurrentGemma runs with float weights and fast numerics alone");
    }
    return recurrentgemma::Griffin(recurrentgemma::GriffinConfig::from_preset(*preset));
  }
  auto config =
      get_model_config(options.variant, options.dtype.empty() ? "bfloat16" : options.dtype);
  config.quant = options.quant.value_or(false);
  config.tokenizer = std::nullopt;
  return make_model(config);
}

}  // namespace

EngineModel random_model(const ModelOptions& options) {
  const auto dtype = dtype_from_string(options.dtype.empty() ? "bfloat16" : options.dtype);
  const DefaultDtypeGuard guard(dtype);
  auto model = empty_model(options);
  constexpr int64_t kBlock = int64_t{1} << 20;
  const auto floats = at::randn({kBlock}, at::kFloat).mul_(0.02).to(dtype);
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
