#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <torch/types.h>

#include <gemma/config/config.h>
#include <gemma/image/image.h>
#include <gemma/text/tokenizer.h>
#include <gemma/vision/preprocessor.h>

namespace gemma {

/// Text and images in the order in which the model is to see them.
using PromptPart = std::variant<std::string, Image>;
using Prompt = std::vector<PromptPart>;

/// The same with images as the vision model takes them: float32 [C, H, W].
using PreprocessedPart = std::variant<std::string, torch::Tensor>;
using PreprocessedPrompt = std::vector<PreprocessedPart>;

/// gemma3_preprocessor.py: gemma3_input_preprocessor. Text passes; an image becomes one of
/// image_size x image_size, and, when it is long enough for pan_and_scan(), its crops with the
/// reference's words before it and before them.
PreprocessedPrompt gemma3_input_preprocessor(const Prompt& raw_user_prompt,
                                             int64_t image_size = kDefaultImageSize);

/// gemma3_preprocessor.py: gemma3_batch_input_preprocessor. The above for each prompt.
std::vector<PreprocessedPrompt> gemma3_batch_input_preprocessor(
    std::span<const Prompt> raw_input, int64_t image_size = kDefaultImageSize);

/// The tokens of a prompt.
struct TokenizedPrompt {
  std::vector<int64_t> ids;
  std::vector<torch::Tensor> images;  // [C, H, W] each, in the order of their placeholders.
};

/// Every image becomes "\n\n", boi_id, `encoding_sequence_length` placeholders, eoi_id, "\n\n".
TokenizedPrompt tokenize_prompt(const Tokenizer& tokenizer,
                                const PreprocessedPrompt& prompt,
                                int64_t encoding_sequence_length,
                                bool bos = true);

/// What tokenize_raw_input() in gemma3_preprocessor.py returns as a dict; N is the largest number
/// of images of a prompt, crops included.
struct ProcessedPrompts {
  /// [B, max_seq_len] int64: each prompt, bos first, then pad_id.
  torch::Tensor user_input_token_ids;
  /// [B, N, C, H, W] float32, zeros where a prompt has fewer images; absent when no prompt has one.
  std::optional<torch::Tensor> image_batch;
  int64_t batch_size = 0;
  int64_t min_prompt_len = 0;
  int64_t max_prompt_len = 0;
  /// max_prompt_len + output_len.
  int64_t max_seq_len = 0;
  /// [B, N] bool: which of image_batch are images; absent when that is.
  std::optional<torch::Tensor> image_presence_mask;
};

/// gemma3_preprocessor.py: tokenize_raw_input. tokenize_prompt() for each prompt; tensors
/// are made on `device`.
/// Throws std::invalid_argument when `config` has no vision_config, there are no prompts, or
/// output_len is negative.
// Differs from gemma3_preprocessor.py: images get the config's image_size, not always 896.
ProcessedPrompts tokenize_raw_input(const Tokenizer& tokenizer,
                                    std::span<const Prompt> raw_input,
                                    const GemmaConfig& config,
                                    int64_t output_len,
                                    torch::Device device);

}  // namespace gemma
