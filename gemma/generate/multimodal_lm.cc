#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/multimodal_lm.h>
#include <gemma/modules/masks.h>

namespace gemma {
namespace {

// Before anything is built of it.
const GemmaConfig& checked(const GemmaConfig& config) {
  if (config.architecture != Architecture::kGemma3) {
    throw std::invalid_argument(
        fmt::format("Gemma3ForMultimodalLM: architecture is {}, but must be GEMMA_3",
                    to_string(config.architecture)));
  }
  if (!config.vision_config) {
    throw std::invalid_argument(
        "Gemma3ForMultimodalLM: vision_config is none, but must be given; text models (270m, 1b) "
        "are GemmaForCausalLM's");
  }
  return config;
}

}  // namespace

Gemma3ForMultimodalLMImpl::Gemma3ForMultimodalLMImpl(const GemmaConfig& config)
    : LanguageModelImpl(checked(config), "text_token_embedder") {
  const auto& vision = *config.vision_config;
  siglip_vision_model = register_module("siglip_vision_model", SiglipVisionModel(vision));
  mm_soft_embedding_norm =
      register_module("mm_soft_embedding_norm", RMSNorm(vision.embedding_dim, config.rms_norm_eps));
  mm_input_projection = register_module(
      "mm_input_projection", Linear(vision.embedding_dim, config.hidden_size, config.quant));
  share_use_lock();
}

std::pair<torch::Tensor, torch::Tensor> Gemma3ForMultimodalLMImpl::forward(
    const torch::Tensor& input_token_ids,
    const std::optional<torch::Tensor>& image_patches,
    const std::optional<torch::Tensor>& image_presence_mask,
    const torch::Tensor& input_positions,
    const std::vector<KVCache>& kv_caches,
    const torch::Tensor& mask,
    const torch::Tensor& output_positions,
    const std::optional<torch::Tensor>& temperatures,
    const torch::Tensor& top_ps,
    const torch::Tensor& top_ks,
    const std::optional<torch::Tensor>& local_mask) {
  const UseLock::Use use(use_lock());
  const auto embeddings = embed_prompts(input_token_ids, image_patches, image_presence_mask);
  return sampler(embedder->view(),
                 hidden_states(embeddings, input_positions, kv_caches, mask, local_mask),
                 output_positions, temperatures, top_ps, top_ks, std::nullopt);
}

torch::Tensor Gemma3ForMultimodalLMImpl::embed_prompts(
    const torch::Tensor& token_ids,
    const std::optional<torch::Tensor>& image_patches,
    const std::optional<torch::Tensor>& image_presence_mask,
    const LayerCallback& on_block) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  const auto embeddings = embed(token_ids);
  if (!image_patches) return embeddings;
  TORCH_CHECK_VALUE(image_presence_mask.has_value(),
                    "Gemma3ForMultimodalLM: image_patches without image_presence_mask; give both");
  TORCH_CHECK_VALUE(image_patches->dim() == 5,
                    "Gemma3ForMultimodalLM: image_patches must be [B, N, C, height, width], got ",
                    image_patches->sizes());
  const auto images = encode_images(image_patches->flatten(0, 1), on_block);
  return populate_image_embeddings(embeddings, images, token_ids, *image_presence_mask);
}

torch::Tensor Gemma3ForMultimodalLMImpl::encode_images(const torch::Tensor& images,
                                                       const LayerCallback& on_block) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  return mm_input_projection(mm_soft_embedding_norm(siglip_vision_model(images, on_block)));
}

torch::Tensor Gemma3ForMultimodalLMImpl::populate_image_embeddings(
    const torch::Tensor& hidden_states,
    const torch::Tensor& image_embeddings,
    const torch::Tensor& input_token_ids,
    const torch::Tensor& image_presence_mask) {
  const torch::NoGradGuard no_grad;
  const auto present = image_presence_mask.flatten().nonzero().squeeze(1);
  const auto images = image_embeddings.index_select(0, present).reshape({-1, config().hidden_size});
  const auto is_place = input_token_ids == tokenizer().image_token_placeholder_id();
  const auto places = is_place.flatten().nonzero().squeeze(1);
  TORCH_CHECK_VALUE(places.size(0) == images.size(0), "Gemma3ForMultimodalLM: ", present.size(0),
                    " images are ", images.size(0), " tokens, but the prompts have ",
                    places.size(0), " placeholders for them");
  auto rows = hidden_states.reshape({-1, config().hidden_size}).clone();
  rows.index_copy_(0, places, images);
  return rows.view(hidden_states.sizes());
}

std::pair<torch::Tensor, torch::Tensor> Gemma3ForMultimodalLMImpl::create_attention_mask(
    const torch::Tensor& input_ids, int64_t sequence_length) {
  TORCH_CHECK_VALUE(input_ids.dim() == 2 && input_ids.size(1) == sequence_length,
                    "create_attention_mask: input_ids must be [B, ", sequence_length, "], got ",
                    input_ids.sizes());
  const auto window = config().sliding_window_size;
  if (!window) {
    throw std::invalid_argument(
        "create_attention_mask: sliding_window_size is none, but must be given");
  }
  const auto blocks = image_blocks(input_ids == tokenizer().image_token_placeholder_id());
  const auto positions = at::arange(sequence_length, blocks.options());
  return {visible_keys(positions, blocks), visible_keys(positions, blocks, window)};
}

}  // namespace gemma
