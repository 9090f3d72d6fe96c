#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/models/quantize.h>

namespace gemma {
namespace {

constexpr double kMin = -128, kMax = 127;

void check(const torch::Tensor& weight) {
  if (weight.dim() == 2 && weight.is_floating_point()) return;
  throw std::invalid_argument(fmt::format(
      "quantize_weight: got {} [{}], but quantises a matrix of floats; leave this one as it is",
      c10::toString(weight.scalar_type()), fmt::join(weight.sizes().vec(), ", ")));
}

void check_scale(const torch::Tensor& scale) {
  if (scale.isfinite().all().item<bool>()) return;
  throw std::invalid_argument(
      "quantize_weight: the weight holds NaN or infinity, which int8 cannot; repair it first");
}

}  // namespace

Quant quant_from_string(std::string_view name) {
  if (name == "int8") return Quant::kInt8;
  throw std::invalid_argument(fmt::format("quant '{}' is unknown; valid: int8", name));
}

// The reference's calls in the reference's order: _find_qparams, then what
// torch.ops.quantized_decomposed.quantize_per_channel does with zero points of 0.
QuantizedWeight quantize_weight(const torch::Tensor& weight) {
  check(weight);
  const torch::NoGradGuard no_grad;
  const auto x = weight.to(at::kFloat);
  auto scale = torch::zeros({x.size(0)}, x.options());
  if (x.size(1) > 0) {
    const auto [min, max] = x.aminmax(/*dim=*/1);
    scale = at::maximum(-at::minimum(min, scale), at::maximum(max, scale)) / ((kMax - kMin) / 2);
  }
  check_scale(scale);
  scale.clamp_min_(std::numeric_limits<float>::epsilon());
  auto rounded = (x * scale.reciprocal().unsqueeze(-1)).round_().clamp_(kMin, kMax);
  return {rounded.to(at::kChar), scale.to(weight.scalar_type())};
}

bool is_quantized_weight(std::string_view name) {
  constexpr std::array kOutsideLayers{"embedder.weight", "text_token_embedder.weight",
                                      "mm_input_projection.weight"};
  constexpr std::array kInLayers{".self_attn.qkv_proj.weight", ".self_attn.o_proj.weight",
                                 ".mlp.gate_proj.weight", ".mlp.up_proj.weight",
                                 ".mlp.down_proj.weight"};
  return std::ranges::find(kOutsideLayers, name) != kOutsideLayers.end() ||
         (name.starts_with("model.layers.") &&
          std::ranges::any_of(kInLayers, [&](auto part) { return name.ends_with(part); }));
}

}  // namespace gemma
