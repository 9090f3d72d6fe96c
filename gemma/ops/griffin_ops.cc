// The arithmetic of recurrentgemma/torch/layers.py and modules.py.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include <gemma/ops/ops.h>
#include <gemma/ops/rnn_scan.h>

namespace gemma {
namespace {

constexpr double kMaskedScore = -2.3819763e38;
constexpr int64_t kMaxWavelength = 10'000;

// 1 for inputs [start, end) with no document's start among the `shift` tokens behind them, else 0:
// float [B, end - start] of the default dtype.
at::Tensor same_document(const at::Tensor& positions, int64_t start, int64_t end, int64_t shift) {
  const auto goes_on = (positions != 0).to(at::kInt);
  auto mask = at::ones({positions.size(0), end - start}, at::device(positions.device()));
  for (int64_t i = 1; i <= shift; ++i) mask *= goes_on.slice(1, start + i, end + i);
  return mask;
}

// With zeros on the left, until there are `length` of dimension 1.
at::Tensor left_padded(const at::Tensor& x, int64_t length) {
  const auto padding = at::zeros({x.size(0), length - x.size(1), x.size(2)}, x.options());
  return at::cat({padding, x}, /*dim=*/1);
}

}  // namespace

at::Tensor Ops::block_diagonal_linear(const at::Tensor& x, const BiasedWeight& blocks) const {
  auto sizes = x.sizes().vec();
  sizes.back() = blocks.weight.size(0);
  sizes.push_back(blocks.weight.size(1));
  const auto y = at::einsum("... h i, h i j -> ... h j", {x.reshape(sizes), blocks.weight});
  return (y + blocks.bias).reshape(x.sizes());
}

std::pair<at::Tensor, at::Tensor> Ops::causal_conv(const at::Tensor& x,
                                                   const BiasedWeight& conv,
                                                   const at::Tensor& positions,
                                                   const std::optional<at::Tensor>& state) const {
  const auto width = conv.weight.size(0), length = x.size(1);
  const auto before = state ? width - 1 : 0;
  const auto input = state ? at::cat({state->to(x.scalar_type()), x}, /*dim=*/1) : x;
  at::Tensor sum;
  for (int64_t shift = 0; shift < std::min(width, before + length); ++shift) {
    const auto start = std::max<int64_t>(before - shift, 0), end = before + length - shift;
    auto window = input.slice(1, start, end);
    if (!state) {
      window *= same_document(positions, start, end, shift).unsqueeze(2).to(x.scalar_type());
    }
    const auto term = left_padded(window, length) * conv.weight.select(0, width - shift - 1);
    // The reference begins with the number 0, which turns -0 into 0.
    sum = shift == 0 ? term + 0.0 : sum.add_(term);
  }
  sum += conv.bias;
  const auto next = input.slice(1, 1 - width).to(state ? state->scalar_type() : x.scalar_type());
  return {sum, left_padded(next, width - 1)};
}

// The reference's autograd function for the root has a backward pass of its own; forward it is the
// root.
std::pair<at::Tensor, at::Tensor> Ops::rg_lru(const at::Tensor& x,
                                              const RgLruWeights& weights,
                                              const at::Tensor& positions,
                                              const std::optional<at::Tensor>& state) const {
  const auto reset = positions == 0;
  const auto gate_x =
      inner(Inner::kInputGate, at::sigmoid(block_diagonal_linear(x, weights.input_gate)));
  const auto gate_a =
      inner(Inner::kDecayGate, at::sigmoid(block_diagonal_linear(x, weights.a_gate)));

  const auto log_a = gate_a * -8.0 * at::softplus(weights.a_param);
  const auto a = inner(Inner::kDecay, at::exp(log_a));
  const auto a_square = at::exp(log_a * 2);

  const auto begins = reset.unsqueeze(-1);
  const auto multiplier = begins + begins.bitwise_not() * at::sqrt(at::rsub(a_square, 1));
  const auto input = inner(Inner::kGatedInput, x * gate_x * multiplier.to(x.scalar_type()));
  return recurrentgemma::rnn_scan(input, a, reset, state);
}

// The reference takes one token where there is a state: these are its own steps for several.
at::Tensor Ops::recur_segments(const at::Tensor& x,
                               const BiasedWeight& conv,
                               const RgLruWeights& weights,
                               Pass /*pass*/,
                               std::span<const Segment> segments,
                               const RecurrentCache& cache,
                               std::span<const StateSlots> slots) const {
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto& segment = segments[i];
    const auto state_of = [&](const at::Tensor& states) {
      return segment.position > 0 ? std::optional(states.narrow(0, slots[i].from, 1))
                                  : std::nullopt;
    };
    const auto positions = at::arange(segment.position, segment.position + segment.tokens,
                                      x.options().dtype(at::kLong));
    // causal_conv may write to its input.
    const auto own = x.narrow(0, segment.first_token, segment.tokens).unsqueeze(0).clone();
    const auto [convolved, inputs] =
        causal_conv(own, conv, positions.unsqueeze(0), state_of(cache.conv1d_state));
    const auto [y, h] =
        rg_lru(convolved, weights, positions.unsqueeze(0), state_of(cache.rg_lru_state));
    cache.conv1d_state.narrow(0, slots[i].to, 1).copy_(inputs);
    cache.rg_lru_state.narrow(0, slots[i].to, 1).copy_(h);
    results.push_back(y[0]);
  }
  return at::cat(results);
}

at::Tensor Ops::rotate_first_half(const at::Tensor& x, const at::Tensor& positions) const {
  const auto halves = x.chunk(2, /*dim=*/-1);
  const auto size = halves[0].size(-1);
  const auto exponents = at::arange(size / 2, at::device(x.device()).dtype(at::kLong)) * 2 / size;
  const auto inv_frequencies = at::pow(kMaxWavelength, exponents).reciprocal();
  const auto angles = positions.unsqueeze(-1).unsqueeze(-1) * inv_frequencies;
  const auto sin = at::sin(angles).to(x.scalar_type());
  const auto cos = at::cos(angles).to(x.scalar_type());
  const auto pair = halves[0].chunk(2, /*dim=*/-1);
  return at::cat({pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin, halves[1]},
                 /*dim=*/-1);
}

at::Tensor Ops::attend_seen(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const at::Tensor& seen) const {
  const auto scale = std::pow(static_cast<double>(q.size(-1)), -0.5);
  const auto logits = at::einsum("btnh,bsnh->bnts", {q, k}) * scale;
  const auto masked =
      inner(Inner::kScores, at::where(seen.unsqueeze(1), logits, kMaskedScore).to(at::kFloat));
  const auto probs = inner(Inner::kPattern, at::softmax(masked, /*dim=*/-1).to(q.scalar_type()));
  return at::einsum("bnts,bsnh->btnh", {probs, v}).reshape({q.size(0), q.size(1), -1});
}

at::Tensor Ops::gelu_gated_linear(const at::Tensor& x,
                                  const at::Tensor& gate,
                                  const BiasedWeight& linear,
                                  Pass pass) const {
  return biased_linear(x * at::gelu(gate, /*approximate=*/"tanh"), linear, pass);
}

at::Tensor Ops::biased_einsum(std::string_view equation,
                              const at::Tensor& x,
                              const BiasedWeight& weight) const {
  return at::einsum(std::string(equation), {x, weight.weight}) + weight.bias;
}

at::Tensor Ops::stacked_mlp(const at::Tensor& x,
                            const BiasedWeight& gate_and_up,
                            const BiasedWeight& down,
                            Pass pass) const {
  if (x.dim() == 2) return stacked_mlp(x.unsqueeze(0), gate_and_up, down, pass)[0];
  const auto out = biased_einsum("...td,cdD->c...tD", x, gate_and_up);
  return gelu_gated_linear(out.select(0, 1), out.select(0, 0), down, pass);
}

}  // namespace gemma
