#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/config/griffin_config.h>
#include <gemma/weights/layout.h>
#include <gemma/weights/weights.h>

namespace gemma {

/// The names that Hugging Face transformers gives to RecurrentGemma's tensors, where a file has
/// them. `names` are those of the entries, in order, without a prefix. None when they are another
/// model's.
std::optional<Layout> hf_griffin_layout(const Checkpoint& checkpoint,
                                        const std::vector<std::string>& names);

/// The weights of a Griffin under the names of transformers, with lm_head.weight: views of them.
StateDict griffin_to_hf(const StateDict& weights);

/// What a config.json with model_type "recurrent_gemma" says beside the sizes of tensors; what is
/// not there is as transformers assumes it. Throws std::runtime_error: one line that names `path`,
/// which serves for nothing else, and the field.
recurrentgemma::GriffinHyperparameters griffin_from_hf(std::string_view json,
                                                       const std::string& path);

}  // namespace gemma
