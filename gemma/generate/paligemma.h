#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/paligemma_config.h>
#include <gemma/generate/options.h>
#include <gemma/generate/prompt_tokens.h>
#include <gemma/generate/request.h>
#include <gemma/models/language_model.h>
#include <gemma/modules/biased_linear.h>
#include <gemma/vision/gemma3_preprocessor.h>
#include <gemma/vision/siglip_vision_model.h>

// Shapes: B batch, L input length, n images, P tokens that an image becomes, E hidden, V
// vocabulary.
namespace gemma {

/// modeling_paligemma.py: PaliGemmaMultiModalProjector.
class PaliGemmaMultiModalProjectorImpl : public Module {
 public:
  explicit PaliGemmaMultiModalProjectorImpl(const PaliGemmaConfig& config);

  /// [n, P, width of the vision model] -> [n, P, E].
  torch::Tensor forward(const torch::Tensor& image_features) {
    return tapped("hook_out", linear(tapped_copy("hook_in", image_features)));
  }

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "PaliGemmaMultiModalProjector()"; }

  BiasedLinear linear{nullptr};
};
TORCH_MODULE(PaliGemmaMultiModalProjector);

/// modeling_paligemma.py: PaliGemmaForConditionalGeneration, PaliGemma 1 and 2. The prefix, which
/// is images, a text and a line break, sees all of itself, in local layers too; what follows it
/// sees what is before it.
// Differs from modeling_paligemma.py: exact numerics take the steps of gemma_pytorch, whose results
// differ from those of transformers in the last bits.
class PaliGemmaForConditionalGenerationImpl : public LanguageModelImpl {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses, FileNotFound when
  /// text_config.tokenizer names no file.
  explicit PaliGemmaForConditionalGenerationImpl(const PaliGemmaConfig& config);

  /// input_ids [B, L] int64, pixel_values [n, C, height, width] for the places of images in it, in
  /// order, or none; token_type_ids [B, L] integers, 0 for the prefix and 1 for what follows it
  /// -> logits [B, L, V] at all places. Throws c10::ValueError when the places are not as many as
  /// the images have tokens, and when a prefix goes on behind what follows it.
  // Differs from modeling_paligemma.py: without token_type_ids all is prefix; there none of it is.
  torch::Tensor forward(const torch::Tensor& input_ids,
                        const std::optional<torch::Tensor>& pixel_values = std::nullopt,
                        const std::optional<torch::Tensor>& token_type_ids = std::nullopt,
                        const LayerCallback& on_layer = {});

  /// Images [n, C, height, width] -> [n, P, E], as the layers see them.
  torch::Tensor encode_images(const torch::Tensor& pixel_values,
                              const LayerCallback& on_block = {});

  /// Token ids [B, L] -> [B, L, E], with the images [n, P, E] in their places.
  torch::Tensor embed_inputs(const torch::Tensor& input_ids,
                             const std::optional<torch::Tensor>& image_features);

  /// A prompt for Session::feed or a Request, whose chunk has to be as long: the images, bos, the
  /// text and "\n", in one run. Throws std::invalid_argument for a text before an image, and for
  /// images that cannot be scaled.
  PromptTokens prompt_tokens(const Prompt& prompt, const LayerCallback& on_block = {});

  /// Continues each prompt, of images and a text behind them -> the continuations, each up to
  /// before the first eos. temperature none or 0: always the likeliest token. With exact numerics
  /// prompts go through the model one by one. Throws as GemmaForCausalLM's generate() and
  /// prompt_tokens do.
  std::vector<std::string> generate(std::span<const Prompt> prompts,
                                    torch::Device device,
                                    int64_t output_len = 100,
                                    std::optional<double> temperature = std::nullopt,
                                    double top_p = 1.0,
                                    int64_t top_k = 64,
                                    const GenerateOptions& options = {});

  bool prefix_ignores_window() const override { return true; }
  const PaliGemmaConfig& paligemma_config() const { return config_; }
  std::string signature() const override { return "PaliGemmaForConditionalGeneration()"; }

  SiglipVisionModel siglip_vision_model{nullptr};
  PaliGemmaMultiModalProjector multi_modal_projector{nullptr};

 protected:
  Family family() const override { return Family::kPaliGemma; }

 private:
  // The id at the places of images: one that the embedding has a row for.
  int64_t placeholder_id() const;
  TokenRows generate_exactly(const GenerateRequest& request,
                             const std::vector<PromptTokens>& prompts,
                             torch::Device device,
                             const GenerateOptions& options);

  PaliGemmaConfig config_;
};
TORCH_MODULE(PaliGemmaForConditionalGeneration);

}  // namespace gemma
