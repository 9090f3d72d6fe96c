#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <torch/types.h>

#include <gemma/modules/module.h>

namespace gemma {

/// What generate() takes besides the reference's parameters. What a callback throws ends the
/// generation.
struct GenerateOptions {
  /// After each step, with its number from 0; step 0 holds the prompt.
  std::function<void(int64_t step)> on_step = {};
  /// Each token of a text as it is chosen, with the number of its prompt.
  std::function<void(int64_t row, int64_t token)> on_token = {};
  /// The number of tokens of each prompt, images included, before the first step.
  std::function<void(int64_t row, int64_t tokens)> on_prompt = {};
  /// After each layer, in every step: a long prompt is one step.
  LayerCallback on_layer = {};
  /// After each of the vision model's layers while the images of prompts are encoded.
  LayerCallback on_encode = {};
  /// Tokens that end a text as eos does.
  std::vector<int64_t> stop_ids = {};
  /// Of keys and values in fast numerics, float32 or bfloat16; exact ones follow config.dtype.
  torch::Dtype kv_dtype = torch::kFloat32;
  /// Of the multimodal model with exact numerics: whether a generated token sees the empty places
  /// after it too, as in the reference, where they count as an image. Else, and with fast numerics,
  /// what a token sees does not depend on output_len.
  bool reference_tail_mask = true;
};

}  // namespace gemma
