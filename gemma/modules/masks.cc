#include <limits>

#include <ATen/ATen.h>

#include <gemma/modules/masks.h>
#include <gemma/modules/module.h>

namespace gemma {
namespace {

// Differs from model.py: float16 cannot hold the value, and there generate() fails when float16 is
// the default dtype; here the mask is then made of the float32 value.
at::Tensor masked_value(const at::Device& device) {
  const auto dtype = default_dtype() == at::kHalf ? at::kFloat : default_dtype();
  return at::scalar_tensor(-2.3819763e38, dtype).to(at::kFloat).to(device);
}

at::Tensor mask_where(const at::Tensor& hidden) {
  const auto mask = at::where(hidden, masked_value(hidden.device()),
                              at::zeros({}, hidden.options().dtype(at::kFloat)));
  return mask.unsqueeze(0).unsqueeze(0);
}

at::Tensor keys(const at::Tensor& positions, int64_t max_seq_len) {
  return at::arange(max_seq_len, positions.options()).unsqueeze(0);  // [1, S]
}

}  // namespace

torch::Tensor causal_mask(const torch::Tensor& positions, int64_t max_seq_len) {
  return mask_where(keys(positions, max_seq_len) > positions.unsqueeze(1));
}

torch::Tensor sliding_window_mask(const torch::Tensor& positions,
                                  int64_t max_seq_len,
                                  int64_t window) {
  const auto j = keys(positions, max_seq_len);
  const auto i = positions.unsqueeze(1);  // [L, 1]
  return mask_where((j > i).logical_or(j <= i - window));
}

torch::Tensor image_blocks(const torch::Tensor& is_image) {
  const auto before = at::constant_pad_nd(is_image.narrow(1, 0, is_image.size(1) - 1), {1, 0}, 0);
  const auto begins = is_image.logical_and(before.logical_not());
  return at::cumsum(begins, /*dim=*/-1) * is_image;
}

torch::Tensor visible_keys(const torch::Tensor& positions,
                           const torch::Tensor& blocks,
                           std::optional<int64_t> window) {
  const auto j = keys(positions, blocks.size(1));
  const auto i = positions.unsqueeze(1);                             // [L, 1]
  const auto of_i = blocks.index_select(1, positions).unsqueeze(2);  // [B, L, 1]
  const auto together = (of_i == blocks.unsqueeze(1)).logical_and_(of_i > 0);
  auto visible = together.logical_or(j <= i);
  if (window) visible.logical_and_(j > i - *window);
  return visible.unsqueeze(1);
}

torch::Tensor prefix_mask(const torch::Tensor& positions,
                          const torch::Tensor& is_prefix,
                          std::optional<int64_t> window) {
  const auto j = keys(positions, is_prefix.size(1));
  const auto i = positions.unsqueeze(1);  // [L, 1]
  auto visible = j <= i;
  if (window) visible.logical_and_(j > i - *window);
  const auto together = is_prefix.index_select(1, positions)
                            .unsqueeze(2)
                            .logical_and(is_prefix.unsqueeze(1));  // [B, L, S]
  const auto floats = visible.options().dtype(at::kFloat);
  return at::where(visible.logical_or(together), at::zeros({}, floats),
                   at::full({}, std::numeric_limits<float>::lowest(), floats))
      .unsqueeze(1);
}

}  // namespace gemma
