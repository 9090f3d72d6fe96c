#include <ATen/ops/gelu.h>

#include <gemma/modules/recurrentgemma/recurrent_block.h>
#include <gemma/modules/recurrentgemma/tapped_recurrence.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

RecurrentBlockImpl::RecurrentBlockImpl(int64_t width,
                                       int64_t num_heads,
                                       std::optional<int64_t> lru_width,
                                       int64_t conv1d_temporal_width) {
  const auto inner = lru_width.value_or(width);
  linear_y = register_module("linear_y", BiasedLinear(width, inner));
  linear_x = register_module("linear_x", BiasedLinear(width, inner));
  linear_out = register_module("linear_out", BiasedLinear(inner, width));
  conv_1d = register_module("conv_1d", Conv1D(inner, conv1d_temporal_width));
  rg_lru = register_module("rg_lru", RGLRU(inner, num_heads));
}

std::pair<torch::Tensor, std::optional<RecurrentBlockCache>> RecurrentBlockImpl::forward(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<RecurrentBlockCache>& cache,
    bool return_cache) {
  const auto state = [&](auto RecurrentBlockCache::* member) {
    return cache ? std::optional(*cache.*member) : std::nullopt;
  };
  const auto in = tapped("hook_in", x);
  const auto gate = linear_y(in);
  auto input = linear_x(in);
  if (linear_x->is_tapped()) input = input.clone();  // The convolution may write to it.
  const auto [convolved, conv1d_state] =
      conv_1d->forward(input, segment_pos, state(&RecurrentBlockCache::conv1d_state), return_cache);
  const auto [y, rg_lru_state] = rg_lru->forward(
      convolved, segment_pos, state(&RecurrentBlockCache::rg_lru_state), return_cache);
  auto out = tapped("hook_out", join(y, gate, Pass::kAny));
  if (!return_cache) return {std::move(out), std::nullopt};
  return {std::move(out), RecurrentBlockCache{*rg_lru_state, *conv1d_state}};
}

torch::Tensor RecurrentBlockImpl::forward_step(const torch::Tensor& x, const StepInputs& inputs) {
  const auto in = tapped("hook_in", x);
  const auto gate = linear_y(in, inputs.pass);
  const auto y = recur_step(linear_x(in, inputs.pass), inputs);
  return tapped("hook_out", join(y, gate, inputs.pass));
}

torch::Tensor RecurrentBlockImpl::recur_step(const torch::Tensor& x,
                                             const StepInputs& inputs) const {
  const auto& state = std::get<RecurrentState>(inputs.state);
  const auto recur_by = [&](const Ops& by, const at::Tensor& in) {
    return by.recur_segments(in, {conv_1d->w, conv_1d->b}, rg_lru->view(), inputs.pass,
                             inputs.segments, state.cache, state.slots);
  };
  if (conv_1d->is_tapped_inside() || rg_lru->are_gates_tapped()) {
    return recur_by(TappedRecurrence(conv_1d, rg_lru, passes()), x);
  }
  const auto y = recur_by(ops(), conv_1d->tapped_copy("hook_in", x));
  return rg_lru->tapped("hook_out", y);
}

// linear_out of the product of both branches.
torch::Tensor RecurrentBlockImpl::join(const torch::Tensor& y,
                                       const torch::Tensor& gate,
                                       Pass pass) {
  if (!linear_out->is_tapped()) {
    return ops().gelu_gated_linear(y, gate, linear_out->view(), pass);
  }
  return linear_out(y * at::gelu(gate, /*approximate=*/"tanh"), pass);
}

RecurrentBlockCache RecurrentBlockImpl::init_cache(int64_t batch_size,
                                                   int64_t lru_width,
                                                   torch::Dtype dtype,
                                                   int64_t conv1d_temporal_width,
                                                   torch::Device device) {
  return {RGLRUImpl::init_cache(batch_size, lru_width, device),
          Conv1DImpl::init_cache(batch_size, lru_width, dtype, conv1d_temporal_width, device)};
}

}  // namespace gemma::recurrentgemma
