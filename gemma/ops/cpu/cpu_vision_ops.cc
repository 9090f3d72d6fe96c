#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>

namespace gemma {
at::Tensor CpuOps::biased_linear(const at::Tensor& x, const BiasedWeight& linear, Pass pass) const {
  RECORD_FUNCTION("gemma::biased_linear", std::vector<c10::IValue>());
  return in_dtype(biased_product(x, linear, pass), x.scalar_type());
}

at::Tensor CpuOps::layer_norm(const at::Tensor& x, const LayerNormWeight& norm) const {
  RECORD_FUNCTION("gemma::layer_norm", std::vector<c10::IValue>());
  const LayerNormWeight wide{norm.weight.to(at::kFloat), norm.bias.to(at::kFloat), norm.eps};
  return in_dtype(Ops::layer_norm(as_rows(x), wide), x.scalar_type());
}

at::Tensor CpuOps::gelu_mlp(const at::Tensor& x,
                            const BiasedWeight& up,
                            const BiasedWeight& down) const {
  RECORD_FUNCTION("gemma::gelu_mlp", std::vector<c10::IValue>());
  auto act = biased_product(x, up, Pass::kAny);
  at::gelu_(act, /*approximate=*/"tanh");
  return in_dtype(biased_product(act, down, Pass::kAny), x.scalar_type());
}

at::Tensor CpuOps::embed_patches(const at::Tensor& pixels,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias) const {
  RECORD_FUNCTION("gemma::embed_patches", std::vector<c10::IValue>());
  TORCH_CHECK(pixels.dim() == 4 && weight.dim() == 4 && pixels.size(1) == weight.size(1),
              "embed_patches: pixels are ", pixels.sizes(), ", but the weight is ", weight.sizes());
  const auto height = weight.size(2);
  const auto width = weight.size(3);
  // [N, C, rows, columns, height, width]; pixels left over at the edges belong to no patch.
  const auto patches = pixels.unfold(2, height, height).unfold(3, width, width);
  const auto rows = patches.permute({0, 2, 3, 1, 4, 5})
                        .reshape({pixels.size(0), patches.size(2) * patches.size(3), -1});
  return biased_product(rows, {weight.flatten(1), bias}, Pass::kAny);
}

}  // namespace gemma
