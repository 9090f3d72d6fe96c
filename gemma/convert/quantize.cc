#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/dtype_name.h>
#include <gemma/convert/quantize.h>
#include <gemma/ops/weight_view.h>

namespace gemma {
namespace {

constexpr double kMin = -128, kMax = 127;

void check(const torch::Tensor& weight) {
  if (weight.dim() == 2 && weight.is_floating_point()) return;
  throw std::invalid_argument(fmt::format(
      "quantize_weight: got {} [{}], but quantises a matrix of floats; leave this one as it is",
      dtype_name(weight.scalar_type()), fmt::join(weight.sizes().vec(), ", ")));
}

void check_scale(const torch::Tensor& scale) {
  if (scale.isfinite().all().item<bool>()) return;
  throw std::invalid_argument(
      "quantize_weight: the weight holds NaN or infinity, which int8 cannot; repair it first");
}

}  // namespace

Quant quant_from_string(std::string_view name) {
  if (name == "int8") return Quant::kInt8;
  if (name == "int4") return Quant::kInt4;
  throw std::invalid_argument(fmt::format("quant '{}' is unknown; valid: int8, int4", name));
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

bool fits_int4(torch::IntArrayRef sizes) {
  return sizes.size() == 2 && sizes[1] % WeightView::kGroup == 0;
}

QuantizedWeight quantize_weight_int4(const torch::Tensor& weight) {
  check(weight);
  if (!fits_int4(weight.sizes())) {
    throw std::invalid_argument(
        fmt::format("quantize_weight_int4: rows have {} numbers, but 4 bits want a multiple of {}",
                    weight.size(1), WeightView::kGroup));
  }
  const torch::NoGradGuard no_grad;
  const auto x = weight.to(at::kFloat).view({weight.size(0), -1, WeightView::kGroup});
  check_scale(x.abs().amax(/*dim=*/-1));
  // 4 bits reach from -8 to 7: the number of the largest magnitude becomes -8, and what gives up
  // some of it to be finer elsewhere is tried as well.
  const auto largest = x.gather(-1, x.abs().argmax(/*dim=*/-1, /*keepdim=*/true));
  at::Tensor best_error, best_scale, best_numbers;
  for (const auto steps : {-8.0, -8.4, -8.8, -7.6, -7.2}) {
    const auto scale = (largest / steps).to(at::kHalf).to(at::kFloat);
    const auto inverse = at::where(scale == 0, 0, scale.reciprocal());
    const auto numbers = (x * inverse).round_().clamp_(-8, 7);
    const auto error = (numbers * scale - x).square_().sum(/*dim=*/-1, /*keepdim=*/true);
    if (!best_error.defined()) {
      std::tie(best_error, best_scale, best_numbers) = std::tuple(error, scale, numbers);
      continue;
    }
    const auto better = error < best_error;
    best_error = at::where(better, error, best_error);
    best_scale = at::where(better, scale, best_scale);
    best_numbers = at::where(better, numbers, best_numbers);
  }
  const auto nibbles = (best_numbers + 8).to(at::kByte);
  const auto halves = nibbles.chunk(2, /*dim=*/-1);
  return {halves[0].bitwise_or(halves[1].bitwise_left_shift(4)).flatten(1).contiguous(),
          best_scale.squeeze(-1).to(at::kHalf)};
}

bool is_layer_weight(std::string_view name) {
  constexpr std::array kParts{".self_attn.qkv_proj.weight", ".self_attn.o_proj.weight",
                              ".mlp.gate_proj.weight", ".mlp.up_proj.weight",
                              ".mlp.down_proj.weight"};
  return name.starts_with("model.layers.") &&
         std::ranges::any_of(kParts, [&](auto part) { return name.ends_with(part); });
}

bool is_quantized_weight(std::string_view name) {
  constexpr std::array kOutsideLayers{"embedder.weight", "text_token_embedder.weight",
                                      "mm_input_projection.weight"};
  return std::ranges::find(kOutsideLayers, name) != kOutsideLayers.end() || is_layer_weight(name);
}

}  // namespace gemma
