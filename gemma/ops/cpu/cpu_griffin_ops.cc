#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

// Matrices [n, in, out] as the kernels take them, one below the other: [n * out, in]. A copy,
// unless they lie in memory that way.
CpuWeight stacked(const at::Tensor& w) { return CpuWeight(w.transpose(1, 2)); }

// A row of [R] or the rows of [n, R] for each of H blocks of features: [n * H, R / H].
CpuWeight by_blocks(const at::Tensor& w, int64_t block) {
  return CpuWeight(w.reshape({-1, block}));
}

// A recurrent layer for the tokens of a pass, in blocks of features that have gates of their own.
class Recurrence {
 public:
  Recurrence(const at::Tensor& x,
             const BiasedWeight& conv,
             const RgLruWeights& weights,
             Pass pass,
             std::span<const Segment> segments,
             const RecurrentCache& cache,
             std::span<const StateSlots> slots,
             float* out)
      : x_(x.const_data_ptr<float>()),
        out_(out),
        tokens_(x.size(0)),
        width_(x.size(1)),
        blocks_(weights.a_gate.weight.size(0)),
        block_(weights.a_gate.weight.size(1)),
        conv_width_(conv.weight.size(0)),
        pass_(pass),
        segments_(segments),
        slots_(slots),
        h_(cache.rg_lru_state.data_ptr<float>()),
        inputs_(cache.conv1d_state.data_ptr<float>()),
        conv_(by_blocks(conv.weight, block_)),
        conv_bias_(by_blocks(conv.bias, block_)),
        input_gate_(stacked(weights.input_gate.weight)),
        input_bias_(by_blocks(weights.input_gate.bias, block_)),
        a_gate_(stacked(weights.a_gate.weight)),
        a_bias_(by_blocks(weights.a_gate.bias, block_)),
        log_a_(at::softplus(as_rows(weights.a_param)).mul_(-8.0)) {
    TORCH_CHECK(input_gate_->type == a_gate_->type,
                "recur_segments: the gates' weights are of two dtypes, but must be of one");
  }

  int64_t blocks() const { return blocks_; }

  // Floats that run() needs.
  int64_t scratch() const {
    return (conv_width_ + 3 + conv_width_ - 1 + 4 * tokens_) * block_ + kernels_.gemm_scratch;
  }

  // Of one block; different ones at the same time.
  void run(int64_t block, float* memory) const {
    const auto take = [&](int64_t rows) { return std::exchange(memory, memory + rows * block_); };
    auto* const gemm_memory = std::exchange(memory, memory + kernels_.gemm_scratch);
    auto* const conv = take(conv_width_);
    auto* const conv_bias = take(1);
    auto* const input_bias = take(1);
    auto* const a_bias = take(1);
    for (int64_t k = 0; k < conv_width_; ++k) {
      kernels_.read_row(*conv_, k * blocks_ + block, conv + k * block_);
    }
    kernels_.read_row(*conv_bias_, block, conv_bias);
    kernels_.read_row(*input_bias_, block, input_bias);
    kernels_.read_row(*a_bias_, block, a_bias);

    auto* const x = take(tokens_);
    auto* const input_gate = take(tokens_);
    auto* const a_gate = take(tokens_);
    auto* const inputs = take(conv_width_ - 1 + tokens_);
    for (size_t i = 0; i < segments_.size(); ++i) convolve(i, block, conv, conv_bias, inputs, x);
    multiply_gates(x, block, gemm_memory, input_gate, a_gate);
    for (size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      const auto at = segment.first_token * block_;
      const bool begins = segment.position == 0;
      auto* const state = state_of(slots_[i].to, block);
      if (!begins) std::copy_n(state_of(slots_[i].from, block), block_, state);
      kernels_.rg_lru({.x = x + at,
                       .input_gate = input_gate + at,
                       .a_gate = a_gate + at,
                       .input_bias = input_bias,
                       .a_bias = a_bias,
                       .log_a = log_a_.const_data_ptr<float>() + block * block_,
                       .tokens = segment.tokens,
                       .features = block_,
                       .begins = begins,
                       .state = state,
                       .out = out_ + segment.first_token * width_ + block * block_,
                       .ld_out = width_});
    }
  }

 private:
  float* state_of(int32_t slot, int64_t block) const { return h_ + slot * width_ + block * block_; }
  float* inputs_of(int32_t slot, int64_t row, int64_t block) const {
    return inputs_ + (slot * (conv_width_ - 1) + row) * width_ + block * block_;
  }

  // The convolution of a segment -> its place in out [T, block]; the last inputs become its state.
  void convolve(size_t i,
                int64_t block,
                const float* conv,
                const float* bias,
                float* inputs,
                float* out) const {
    const auto& segment = segments_[i];
    const auto before = conv_width_ - 1;
    for (int64_t row = 0; row < before; ++row) {
      auto* const to = inputs + row * block_;
      if (segment.position == 0) {
        std::fill_n(to, block_, 0.0F);
      } else {
        std::copy_n(inputs_of(slots_[i].from, row, block), block_, to);
      }
    }
    for (int64_t t = 0; t < segment.tokens; ++t) {
      std::copy_n(x_ + (segment.first_token + t) * width_ + block * block_, block_,
                  inputs + (before + t) * block_);
    }
    kernels_.causal_conv(inputs, conv, bias, conv_width_, segment.tokens, block_,
                         out + segment.first_token * block_);
    for (int64_t row = 0; row < before; ++row) {
      std::copy_n(inputs + (segment.tokens + row) * block_, block_,
                  inputs_of(slots_[i].to, row, block));
    }
  }

  // x [T, block] times the block's matrices of both gates -> [T, block] each.
  void multiply_gates(
      const float* x, int64_t block, float* memory, float* input_gate, float* a_gate) const {
    const auto input = rows_of(*input_gate_, block * block_, block_);
    const auto a = rows_of(*a_gate_, block * block_, block_);
    if (by_rows(pass_, tokens_)) {
      const GemvInput few(x, tokens_, input);
      few.multiply(input, 0, block_, input_gate, block_);
      few.multiply(a, 0, block_, a_gate, block_);
      return;
    }
    const GemmInput many(x, tokens_, input);
    many.each_task(input, [&](const cpu::PackedRows& part, int64_t panel, int64_t /*worker*/) {
      const auto at = part.begin * block_ + panel * kernels_.gemm_nr;
      kernels_.gemm(part, input, panel, input_gate + at, block_, memory);
      kernels_.gemm(part, a, panel, a_gate + at, block_, memory);
    });
  }

  const cpu::Kernels& kernels_ = cpu::kernels();
  const float* x_;
  float* out_;
  int64_t tokens_, width_, blocks_, block_, conv_width_;
  Pass pass_;
  std::span<const Segment> segments_;
  std::span<const StateSlots> slots_;
  float* h_;       // [slots, R]
  float* inputs_;  // [slots, K - 1, R]
  CpuWeight conv_, conv_bias_, input_gate_, input_bias_, a_gate_, a_bias_;
  at::Tensor log_a_;
};

}  // namespace

at::Tensor CpuOps::recur_segments(const at::Tensor& x,
                                  const BiasedWeight& conv,
                                  const RgLruWeights& weights,
                                  Pass pass,
                                  std::span<const Segment> segments,
                                  const RecurrentCache& cache,
                                  std::span<const StateSlots> slots) const {
  RECORD_FUNCTION("gemma::recur_segments", std::vector<c10::IValue>());
  const auto from = as_rows(x);
  auto out = at::empty_like(from);
  const Recurrence recurrence(from, conv, weights, pass, segments, cache, slots,
                              out.mutable_data_ptr<float>());
  const Scratch scratch(recurrence.scratch());
  parallel_for(recurrence.blocks(),
               [&](int64_t block, int64_t worker) { recurrence.run(block, scratch.of(worker)); });
  return in_dtype(out, x.scalar_type());
}

at::Tensor CpuOps::gelu_gated_linear(const at::Tensor& x,
                                     const at::Tensor& gate,
                                     const BiasedWeight& linear,
                                     Pass pass) const {
  RECORD_FUNCTION("gemma::gelu_gated_linear", std::vector<c10::IValue>());
  const auto from = as_rows(x);
  const auto gated = as_rows(gate).clone();
  const auto size = from.size(-1);
  each_row(row_count(from), [&, to = gated.mutable_data_ptr<float>(),
                             up = from.const_data_ptr<float>()](int64_t i, int64_t /*worker*/) {
    cpu::kernels().geglu(to + i * size, size, up + i * size, size, 1, size);
  });
  return in_dtype(biased_product(gated, linear, pass), x.scalar_type());
}

at::Tensor CpuOps::stacked_mlp(const at::Tensor& x,
                               const BiasedWeight& gate_and_up,
                               const BiasedWeight& down,
                               Pass pass) const {
  RECORD_FUNCTION("gemma::stacked_mlp", std::vector<c10::IValue>());
  const auto from = as_rows(x);
  const auto both = stacked(gate_and_up.weight);
  const auto width = gate_and_up.weight.size(2);
  TORCH_CHECK(from.size(-1) == both->columns, "stacked_mlp: x is ", x.sizes(),
              ", but the weight takes ", both->columns, " features");
  const auto gate = rows_of(*both, 0, width);
  const auto up = rows_of(*both, width, width);
  const auto bias = in_dtype(gate_and_up.bias, at::kFloat).contiguous();
  const auto* const biases = bias.const_data_ptr<float>();
  auto sizes = from.sizes().vec();
  sizes.back() = width;
  const auto act = at::empty(sizes, at::kFloat);
  multiply_gated(from.const_data_ptr<float>(), row_count(from), {gate, up, biases, biases + width},
                 pass, act.mutable_data_ptr<float>());
  return in_dtype(biased_product(act, down, pass), x.scalar_type());
}

}  // namespace gemma
