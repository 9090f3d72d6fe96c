#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/paligemma.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

// Before anything is built of it.
const PaliGemmaConfig& checked_paligemma(const PaliGemmaConfig& config) {
  validate(config);
  return config;
}

// [B, L], true for the prefix.
at::Tensor prefix_of(const at::Tensor& input_ids, const std::optional<at::Tensor>& token_type_ids) {
  if (!token_type_ids) return at::ones_like(input_ids, at::kBool);
  TORCH_CHECK_VALUE(token_type_ids->sizes() == input_ids.sizes(),
                    "PaliGemmaForConditionalGeneration: token_type_ids must be ", input_ids.sizes(),
                    ", got ", token_type_ids->sizes());
  const auto is_prefix = *token_type_ids == 0;
  const auto length = is_prefix.size(1);
  const auto goes_on = is_prefix.narrow(1, 1, length - 1)
                           .logical_and(is_prefix.narrow(1, 0, length - 1).logical_not());
  TORCH_CHECK_VALUE(!goes_on.any().item<bool>(),
                    "PaliGemmaForConditionalGeneration: token_type_ids has a 0 behind a 1, but the "
                    "prefix comes first");
  return is_prefix;
}

}  // namespace

PaliGemmaMultiModalProjectorImpl::PaliGemmaMultiModalProjectorImpl(const PaliGemmaConfig& config) {
  linear = register_module("linear",
                           BiasedLinear(config.vision_config.embedding_dim, config.projection_dim));
}

PaliGemmaForConditionalGenerationImpl::PaliGemmaForConditionalGenerationImpl(
    const PaliGemmaConfig& config)
    : LanguageModelImpl(checked_paligemma(config).text_config, "text_token_embedder"),
      config_(config) {
  siglip_vision_model =
      register_module("siglip_vision_model", SiglipVisionModel(config.vision_config, Pooling::kNo));
  multi_modal_projector =
      register_module("multi_modal_projector", PaliGemmaMultiModalProjector(config));
  share_use_lock();
}

torch::Tensor PaliGemmaForConditionalGenerationImpl::forward(
    const torch::Tensor& input_ids,
    const std::optional<torch::Tensor>& pixel_values,
    const std::optional<torch::Tensor>& token_type_ids,
    const LayerCallback& on_layer) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  TORCH_CHECK_VALUE(input_ids.dim() == 2 && input_ids.numel() > 0,
                    "PaliGemmaForConditionalGeneration: input_ids must be [B, L], got ",
                    input_ids.sizes());
  const auto is_prefix = prefix_of(input_ids, token_type_ids);
  const auto features = pixel_values ? std::optional(encode_images(*pixel_values)) : std::nullopt;
  const auto embeddings = embed_inputs(input_ids, features);
  const auto positions = at::arange(input_ids.size(1), input_ids.options().dtype(at::kLong));
  const auto caches = make_kv_caches(input_ids.size(0), input_ids.size(1), embeddings.device());
  const auto& text = config_.text_config;
  const auto local =
      text.sliding_window_size
          ? std::optional(prefix_mask(positions, is_prefix, text.sliding_window_size))
          : std::nullopt;
  const auto hidden = hidden_states(embeddings, positions, caches,
                                    prefix_mask(positions, is_prefix), local, on_layer);
  const auto out =
      logits(hidden.flatten(0, 1), /*buffer=*/{}).view({input_ids.size(0), input_ids.size(1), -1});
  return text.final_logit_softcapping ? softcap(out, *text.final_logit_softcapping) : out;
}

torch::Tensor PaliGemmaForConditionalGenerationImpl::encode_images(
    const torch::Tensor& pixel_values, const LayerCallback& on_block) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  return multi_modal_projector->forward(siglip_vision_model(pixel_values, on_block));
}

torch::Tensor PaliGemmaForConditionalGenerationImpl::embed_inputs(
    const torch::Tensor& input_ids, const std::optional<torch::Tensor>& image_features) {
  const torch::NoGradGuard no_grad;
  const auto is_image = input_ids == config_.image_token_id;
  auto embeddings = embed(input_ids.masked_fill(is_image, placeholder_id()));
  const auto places = is_image.flatten().nonzero().squeeze(1);
  const auto tokens = image_features ? image_features->size(0) * image_features->size(1) : 0;
  TORCH_CHECK_VALUE(places.size(0) == tokens, "PaliGemmaForConditionalGeneration: the images are ",
                    tokens, " tokens, but input_ids has ", places.size(0), " places for them (",
                    config_.image_token_id, ")");
  if (!image_features) return embeddings;
  embeddings.view({-1, embeddings.size(2)})
      .index_copy_(0, places, image_features->flatten(0, 1).to(embeddings.scalar_type()));
  return embeddings;
}

int64_t PaliGemmaForConditionalGenerationImpl::placeholder_id() const {
  return config_.image_token_id < config().vocab_size ? config_.image_token_id : 0;
}

}  // namespace gemma
