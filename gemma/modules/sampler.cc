#include <functional>
#include <stdexcept>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <gemma/modules/sampler.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

// The reference's operations, with a function for the logits before the soft cap.
class TappedSampleOps : public Ops {
 public:
  using Function = std::function<at::Tensor(const at::Tensor& logits)>;

  explicit TappedSampleOps(Function function) : function_(std::move(function)) {}

  at::Tensor logits(const at::Tensor& hidden,
                    const WeightView& embedding,
                    at::Tensor buffer) const override {
    // Sampling writes to them.
    return function_(Ops::logits(hidden, embedding, std::move(buffer))).clone();
  }

 private:
  Function function_;
};

}  // namespace

SamplerImpl::SamplerImpl(int64_t vocab_size, const GemmaConfig& config)
    : vocab_size_(vocab_size), config_(config) {}

std::pair<torch::Tensor, torch::Tensor> SamplerImpl::forward(
    const WeightView& embedding,
    const torch::Tensor& hidden_states,
    const torch::Tensor& output_positions,
    const std::optional<torch::Tensor>& temperatures,
    const torch::Tensor& top_ps,
    const torch::Tensor& top_ks,
    const std::optional<torch::Tensor>& embedding_bias) {
  const torch::NoGradGuard no_grad;
  const auto hidden = hidden_states.index_select(1, output_positions).squeeze(1);
  if (!is_tapped()) {
    return ops().sample(hidden, embedding, embedding_bias, config_.final_logit_softcapping,
                        {temperatures, top_ps, top_ks});
  }
  if (numerics() == Numerics::kFast) {
    throw std::invalid_argument(
        "taps: fast numerics sample without logits that hook_logits of Sampler could see; use "
        "set_numerics(\"exact\")");
  }
  const auto tap = [this](const at::Tensor& logits) { return tapped("hook_logits", logits); };
  return TappedSampleOps(tap).sample(hidden, embedding, embedding_bias,
                                     config_.final_logit_softcapping,
                                     {temperatures, top_ps, top_ks});
}

std::vector<TapPoint> SamplerImpl::tap_points() const { return {{"hook_logits"}}; }

}  // namespace gemma
