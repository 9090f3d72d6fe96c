#pragma once

#include <torch/nn/module.h>

#include <gemma/config/config.h>
#include <gemma/weights/weights.h>

namespace gemma {

/// The weights of `module`, a model of `config`, under the plain names of transformers
/// (hf_plain_name), with lm_head.weight: views of the module's own. Throws std::invalid_argument
/// for quantised weights.
StateDict to_hf_state_dict(const torch::nn::Module& module, const GemmaConfig& config);

/// The weights for `module` from those of a model of transformers: the same tensors but for
/// queries, keys and values, which are copied into one, and the transposed projection of images.
/// Names that it does not need are passed over. Throws std::invalid_argument, naming the tensor,
/// when one is missing or does not fit.
StateDict from_hf_state_dict(const torch::nn::Module& module,
                             const GemmaConfig& config,
                             const StateDict& theirs);

}  // namespace gemma
