#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/next_tokens.h>

namespace gemma {
namespace {

bool is_finite(const at::Tensor& number) { return at::isfinite(number).item<bool>(); }

}  // namespace

NextTokens::NextTokens(LanguageModelImpl& model, const GenerateRequest& request)
    : model_(model),
      request_(request),
      params_(request.sampling_params(model.embedder->weight.device())) {}

at::Tensor NextTokens::sample(const at::Tensor& hidden_states, const at::Tensor& output_positions) {
  const auto [tokens, logits] = [&] {
    try {
      return model_.sampler(model_.embedder->view(), hidden_states, output_positions,
                            params_.temperatures, params_.top_ps, params_.top_ks);
    } catch (const c10::Error&) {  // at::multinomial's, about probabilities.
      const auto finite = are_finite_without_temperature(hidden_states, output_positions);
      if (finite && !params_.temperatures) throw;
      explain(finite);
    }
  }();
  // A soft cap may turn NaN into a number: hence the hidden states, too.
  const auto sum =
      logits.sum(at::kFloat) + hidden_states.index_select(1, output_positions).sum(at::kFloat);
  sum_ = sum_.defined() ? sum_ + sum : sum;
  if (sum.is_cpu() && !is_finite(sum)) {
    explain(are_finite_without_temperature(hidden_states, output_positions));
  }
  return tokens.reshape({-1});
}

bool NextTokens::are_finite_without_temperature(const at::Tensor& hidden_states,
                                                const at::Tensor& output_positions) const {
  const auto logits = model_
                          .sampler(model_.embedder->view(), hidden_states, output_positions,
                                   std::nullopt, params_.top_ps, params_.top_ks)
                          .second;
  return is_finite(logits.sum(at::kFloat) + hidden_states.sum(at::kFloat));
}

void NextTokens::check() const {
  if (sum_.defined() && !is_finite(sum_)) explain(/*finite_before_temperature=*/false);
}

void NextTokens::explain(bool finite_before_temperature) const {
  if (finite_before_temperature) {
    throw std::runtime_error(
        fmt::format("generate: the logits divided by the temperature, {}, are NaN or infinite; "
                    "give 0 for the likeliest token, or a larger temperature",
                    *request_.temperature));
  }
  if (model_.config().get_dtype() == at::kHalf) {
    throw std::runtime_error(
        "generate: the logits are NaN or infinite: activations overflow float16, which ends at "
        "65504; use bfloat16 or float32");
  }
  throw std::runtime_error(
      "generate: the logits are NaN or infinite: the weights hold NaN or infinite numbers; "
      "download "
      "or convert the checkpoint again");
}

}  // namespace gemma
