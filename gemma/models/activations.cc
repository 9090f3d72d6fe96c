#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/models/activations.h>

namespace gemma {

Activations::Activations(LanguageModel model, const std::vector<std::string>& points)
    : model_(std::move(model)), is_computed_(points.size()) {
  std::vector<Tap> taps;
  for (size_t i = 0; i < points.size(); ++i) {
    taps.push_back({points[i], [this, i](const at::Tensor& value, const TapSite& site) {
                      is_computed_[i] = true;
                      layers_needed_ = layers_done_;
                      values_.try_emplace(std::string(site.name), value.detach()[0].clone());
                      return std::nullopt;
                    }});
  }
  handle_ = model_->add_taps(taps);
  try {
    find_end(points);
  } catch (...) {
    model_->remove_taps(handle_);
    throw;
  }
}

Activations::~Activations() { model_->remove_taps(handle_); }

// By a text of one token: which points are computed, and after how many layers.
void Activations::find_end(const std::vector<std::string>& points) {
  const int64_t token = 0;
  for (const auto& [name, value] : of({&token, 1})) names_.push_back(name);
  for (size_t i = 0; i < points.size(); ++i) {
    if (is_computed_[i]) continue;
    throw std::invalid_argument(fmt::format(
        "activations: '{}' is not computed while a text is read; name another point", points[i]));
  }
  if (layers_needed_ < model_->config().num_hidden_layers) range_.end = layers_needed_ + 1;
}

Activations::Values Activations::of(std::span<const int64_t> tokens,
                                    const LayerCallback& on_layer) {
  const torch::NoGradGuard no_grad;
  values_.clear();
  layers_done_ = 0;
  model_->run(at::tensor(tokens, at::kLong).unsqueeze(0), range_, [&](int64_t done, int64_t total) {
    layers_done_ = done;
    if (on_layer) on_layer(done, range_.end.value_or(total));
  });
  return std::move(values_);
}

bool is_of_token_pairs(std::string_view point) {
  return point.ends_with(".hook_pattern") || point.ends_with(".hook_attn_scores");
}

}  // namespace gemma
