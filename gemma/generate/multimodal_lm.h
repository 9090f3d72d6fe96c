#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/generate/options.h>
#include <gemma/generate/prompt_tokens.h>
#include <gemma/models/language_model.h>
#include <gemma/modules/linear.h>
#include <gemma/modules/rms_norm.h>
#include <gemma/vision/gemma3_preprocessor.h>
#include <gemma/vision/siglip_vision_model.h>

namespace gemma {

/// gemma3_model.py: Gemma3ForMultimodalLM, text and images. N is the number of images of a prompt,
/// C their channels, U the tokens that an image becomes.
class Gemma3ForMultimodalLMImpl : public LanguageModelImpl {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses, is not of Gemma 3, or has
  /// no vision_config; FileNotFound when config.tokenizer names no file.
  explicit Gemma3ForMultimodalLMImpl(const GemmaConfig& config);

  /// input_token_ids [B, L] int64, image_patches [B, N, C, height, width] or none,
  /// image_presence_mask [B, N] bool (which of them are images), the rest as GemmaForCausalLM takes
  /// it -> (next tokens [B] int64, logits [B, V]); see Sampler.
  std::pair<torch::Tensor, torch::Tensor> forward(
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
      const std::optional<torch::Tensor>& local_mask = std::nullopt);

  /// Token ids [B, L] -> [B, L, E], with images in the places of their placeholders.
  torch::Tensor embed_prompts(const torch::Tensor& token_ids,
                              const std::optional<torch::Tensor>& image_patches,
                              const std::optional<torch::Tensor>& image_presence_mask,
                              const LayerCallback& on_block = {});

  /// Images [n, C, height, width] -> [n, U, E], as the layers see them.
  torch::Tensor encode_images(const torch::Tensor& images, const LayerCallback& on_block = {});

  /// A prompt for Session::feed or a Request, with bos in front or without. Throws
  /// std::invalid_argument for images that cannot be scaled.
  PromptTokens prompt_tokens(const Prompt& prompt, bool bos = true);

  /// hidden_states [B, L, E], the places of whose placeholders in input_token_ids [B, L] are given
  /// the image_embeddings [B * N, U, E] that image_presence_mask [B, N] has, in order -> the same
  /// shape. Throws c10::ValueError when there are not as many places.
  torch::Tensor populate_image_embeddings(const torch::Tensor& hidden_states,
                                          const torch::Tensor& image_embeddings,
                                          const torch::Tensor& input_token_ids,
                                          const torch::Tensor& image_presence_mask);

  /// What tokens see in global and in local layers, bool [B, 1, S, S] each: what is before them and
  /// all of their own image. input_ids [B, S]; whatever is a placeholder is taken for an image, the
  /// padding after a prompt too. Throws std::invalid_argument without a window in the config.
  std::pair<torch::Tensor, torch::Tensor> create_attention_mask(const torch::Tensor& input_ids,
                                                                int64_t sequence_length);

  /// Continues each prompt -> prompts and continuations together, images as nothing, each up to
  /// before the first eos. As in the reference, all end at the same position: output_len tokens
  /// behind the longest prompt, so that a shorter one is continued further. Parameters and errors
  /// are those of GemmaForCausalLM.
  // Differs from gemma3_model.py: images that reach past the end of the shortest prompt make the
  // reference fail; with exact numerics the prompts then go through the model one by one.
  std::vector<std::string> generate(std::span<const Prompt> prompts,
                                    torch::Device device,
                                    int64_t output_len = 100,
                                    std::optional<double> temperature = 1.0,
                                    double top_p = 0.95,
                                    int64_t top_k = 64,
                                    const GenerateOptions& options = {});

  std::string signature() const override { return "Gemma3ForMultimodalLM()"; }

  SiglipVisionModel siglip_vision_model{nullptr};
  RMSNorm mm_soft_embedding_norm{nullptr};
  Linear mm_input_projection{nullptr};
};
TORCH_MODULE(Gemma3ForMultimodalLM);

}  // namespace gemma
