#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "image.h"
#include "language_model.h"
#include "transformers.h"

#include <gemma/generate/multimodal_lm.h>
#include <gemma/weights/hf/hf_layout.h>

namespace gemma::bindings {
namespace {

using Self = Gemma3ForMultimodalLMImpl;

// A string is a sequence of strings, too, but not a prompt.
py::iterator parts_of(const py::handle& given) {
  if (!py::isinstance<py::str>(given) && py::hasattr(given, "__iter__")) return py::iter(given);
  throw py::type_error(fmt::format(
      "generate: prompts is a list of prompts, each a list of str and images; got {} for a list",
      py::repr(given).cast<std::string>()));
}

PromptPart to_part(const py::handle& given) {
  if (py::isinstance<py::str>(given)) return to_text(given);
  try {
    return given.cast<Image>();
  } catch (const py::cast_error&) {
    throw py::type_error(
        fmt::format("generate: a prompt is a list of str and PIL images, but has {}",
                    py::repr(given).cast<std::string>()));
  }
}

std::vector<Prompt> to_prompts(const py::object& given) {
  std::vector<Prompt> prompts;
  for (const auto prompt : parts_of(given)) {
    prompts.emplace_back();
    for (const auto part : parts_of(prompt)) prompts.back().push_back(to_part(part));
  }
  return prompts;
}

std::vector<std::string> generate(Self& self,
                                  const py::object& given,
                                  const py::object& device,
                                  int64_t output_len,
                                  std::optional<double> temperature,
                                  double top_p,
                                  int64_t top_k,
                                  const py::object& on_token,
                                  const std::vector<int64_t>& stop_ids,
                                  const py::object& kv_dtype,
                                  bool reference_tail_mask) {
  const auto where = to_device(device);
  auto options = generate_options(on_token, stop_ids, kv_dtype);
  options.reference_tail_mask = reference_tail_mask;
  const auto prompts = to_prompts(given);
  const py::gil_scoped_release release;
  return self.generate(prompts, where, output_len, temperature, top_p, top_k, options);
}

// Under the names that `model` has for them, which differ from release to release.
py::dict to_transformers_state_dict(const Self& self, const py::object& model) {
  const auto ours = to_hf_state_dict(self, self.config());
  const std::map<std::string, at::Tensor> by_plain_name(ours.begin(), ours.end());
  py::dict state;
  for (const auto& key : model.attr("state_dict")()) {
    const auto found = by_plain_name.find(hf_plain_name(key.cast<std::string>()));
    if (found != by_plain_name.end()) state[key] = found->second;
  }
  return state;
}

}  // namespace

void bind_multimodal_lm(py::module_& m) {
  ModuleClass<Self, LanguageModelImpl>(m, "Gemma3ForMultimodalLM",
                                       "gemma3_model.py: Gemma3ForMultimodalLM.")
      .def(py::init<const GemmaConfig&>(), py::arg("config"), ReleaseGil())
      .def(
          "forward",
          [](Self& self, const at::Tensor& input_token_ids,
             const std::optional<at::Tensor>& image_patches,
             const std::optional<at::Tensor>& image_presence_mask,
             const at::Tensor& input_positions, const std::vector<KVCache>& kv_caches,
             const at::Tensor& mask, const at::Tensor& output_positions,
             const std::optional<at::Tensor>& temperatures, const at::Tensor& top_ps,
             const at::Tensor& top_ks, const std::optional<at::Tensor>& local_mask,
             const py::kwargs& /*ignored*/) {
            const py::gil_scoped_release release;
            return self.forward(input_token_ids, image_patches, image_presence_mask,
                                input_positions, kv_caches, mask, output_positions, temperatures,
                                top_ps, top_ks, local_mask);
          },
          py::arg("input_token_ids"), py::arg("image_patches"), py::arg("image_presence_mask"),
          py::arg("input_positions"), py::arg("kv_caches"), py::arg("mask"),
          py::arg("output_positions"), py::arg("temperatures"), py::arg("top_ps"),
          py::arg("top_ks"), py::arg("local_mask") = py::none(),
          "-> (next_token_ids [B], logits [B, V]); writes kv_caches in place")
      .def(
          "encode_images",
          [](Self& self, const at::Tensor& images) { return self.encode_images(images); },
          py::arg("images"), ReleaseGil(),
          "[N, C, height, width] -> [N, U, E], as the layers see them")
      .def("populate_image_embeddings", &Self::populate_image_embeddings, py::arg("hidden_states"),
           py::arg("image_embeddings"), py::arg("input_token_ids"), py::arg("image_presence_mask"),
           ReleaseGil())
      .def("create_attention_mask", &Self::create_attention_mask, py::arg("input_ids"),
           py::arg("sequence_length"), ReleaseGil(), "-> (global, local), bool [B, 1, S, S] each")
      .def("generate", generate, py::arg("prompts"), py::arg("device"), py::arg("output_len") = 100,
           py::arg("temperature") = 1.0, py::arg("top_p") = 0.95, py::arg("top_k") = 64,
           py::kw_only(), py::arg("on_token") = py::none(),
           py::arg("stop_ids") = std::vector<int64_t>(), py::arg("kv_dtype") = py::none(),
           py::arg("reference_tail_mask") = true,
           "Continues prompts of text and images -> prompts and continuations.")
      .def_static("from_transformers", from_transformers<Self>, py::arg("model"),
                  py::arg("tokenizer") = py::none(),
                  "A model with the weights of one of Hugging Face transformers, in memory.")
      .def("to_transformers_state_dict", to_transformers_state_dict, py::arg("model"),
           "The weights under the names of `model`, one of transformers.");
}

}  // namespace gemma::bindings
