// siglip_vision_model.py's arithmetic.
#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <c10/core/DefaultDtype.h>

#include <gemma/ops/ops.h>

namespace gemma {
namespace {

// The reference writes the formula out, and F.gelu's results differ in the last bits. The root is
// that of a tensor of the default dtype, in bfloat16 a coarse one.
at::Tensor gelu_tanh(const at::Tensor& x) {
  const auto dtype = c10::get_default_dtype_as_scalartype();
  const auto factor = at::sqrt(at::scalar_tensor(2.0 / std::numbers::pi, x.options().dtype(dtype)));
  const auto inner = factor * (x + at::pow(x, 3) * 0.044715);
  return x * 0.5 * (at::tanh(inner) + 1);
}

}  // namespace

at::Tensor Ops::biased_linear(const at::Tensor& x,
                              const BiasedWeight& linear,
                              Pass /*pass*/) const {
  return at::linear(x, linear.weight, linear.bias);
}

at::Tensor Ops::layer_norm(const at::Tensor& x, const LayerNormWeight& norm) const {
  return at::layer_norm(x, norm.weight.sizes(), norm.weight, norm.bias, norm.eps);
}

at::Tensor Ops::gelu_mlp(const at::Tensor& x,
                         const BiasedWeight& up,
                         const BiasedWeight& down) const {
  return biased_linear(gelu_tanh(biased_linear(x, up, Pass::kAny)), down, Pass::kAny);
}

at::Tensor Ops::attend_all(const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           int64_t num_heads) const {
  const auto head_dim = q.size(-1) / num_heads;
  const auto heads = [&](const at::Tensor& x) {
    return x.view({x.size(0), x.size(1), num_heads, head_dim}).transpose(1, 2);  // [N, H, P, D]
  };
  // Softmax in the model's dtype, unlike that of the text model.
  const auto scores = inner(Inner::kScores, at::matmul(heads(q), heads(k).transpose(-2, -1)) /
                                                std::pow(static_cast<double>(head_dim), 0.5));
  const auto probs = inner(Inner::kPattern, at::softmax(scores, /*dim=*/-1));
  const auto out = at::matmul(probs, heads(v));
  return out.transpose(1, 2).contiguous().view(q.sizes());
}

// Differs from siglip_vision_model.py: pixels are cast to the weights' dtype. The preprocessor
// makes float32 ones, and there any model but a float32 one fails.
at::Tensor Ops::embed_patches(const at::Tensor& pixels,
                              const at::Tensor& weight,
                              const at::Tensor& bias) const {
  const auto x = at::conv2d(pixels.to(weight.scalar_type()), weight,
                            bias.defined() ? std::optional(bias) : std::nullopt,
                            /*stride=*/{weight.size(2), weight.size(3)});
  return x.flatten(2).transpose(1, 2);
}

at::Tensor Ops::pool_patches(const at::Tensor& x) const {
  constexpr int64_t kSide = 4;
  const auto width = std::llround(std::sqrt(static_cast<double>(x.size(1))));
  TORCH_CHECK_VALUE(width * width == x.size(1), "AveragePool2D: ", x.size(1),
                    " patches are no square");
  const auto square = x.transpose(1, 2).reshape({x.size(0), x.size(2), width, width});
  return at::avg_pool2d(square, {kSide, kSide}, {kSide, kSide}).flatten(2).transpose(1, 2);
}

}  // namespace gemma
