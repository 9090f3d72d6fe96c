#pragma once

#include <string>

#include <torch/types.h>

#include <gemma/config/config.h>
#include <gemma/weights/weights.h>

namespace gemma {

/// What TransformerLens' HookedTransformer holds for the tensor `name` of gemma_pytorch, in a text
/// model of `config`: weights by head, with the inputs of a product before its outputs; norms with
/// their 1 added, in float32; zeros for the biases that Gemma does not have. The embedding is
/// multiplied by the root of E, and the unembedding is the embedding's transpose. Empty for what
/// TransformerLens computes itself. Throws std::invalid_argument for a name that is no Gemma's.
StateDict to_transformer_lens(const std::string& name,
                              const torch::Tensor& tensor,
                              const GemmaConfig& config);

}  // namespace gemma
