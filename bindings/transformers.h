#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "bindings.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_state_dict.h>

namespace gemma::bindings {

// A `Model` with the weights of one of transformers, whose tensors it shares.
template <typename Model>
std::shared_ptr<Model> from_transformers(const py::object& model,
                                         const std::optional<std::string>& tokenizer) {
  const auto json = model.attr("config").attr("to_json_string")(false).cast<std::string>();
  auto config = config_from_hf(json, "from_transformers", tokenizer);
  constexpr bool kIsText = std::is_same_v<Model, GemmaForCausalLMImpl>;
  if (config.vision_config.has_value() == kIsText) {
    throw std::invalid_argument(kIsText ? "from_transformers: the model is multimodal; use "
                                          "Gemma3ForMultimodalLM.from_transformers"
                                        : "from_transformers: the model is of text alone; use "
                                          "GemmaForCausalLM.from_transformers");
  }
  const auto dtype = model.attr("dtype").cast<torch::ScalarType>();
  config.dtype = dtype_to_string(dtype);
  if (config.vision_config) config.vision_config->dtype = config.dtype;
  config.tokenizer = tokenizer;
  const auto state = model.attr("state_dict")().cast<std::map<std::string, at::Tensor>>();
  const py::gil_scoped_release release;
  const DefaultDtypeGuard guard(dtype);
  auto ours = std::make_shared<Model>(config);
  load_state_dict(*ours, from_hf_state_dict(*ours, config, StateDict(state.begin(), state.end())),
                  /*strict=*/true, /*assign=*/true);
  ours->eval();
  return ours;
}

}  // namespace gemma::bindings
