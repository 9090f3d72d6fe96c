#include <variant>
#include <vector>

#include "language_model.h"
#include "transformers.h"

#include <gemma/generate/causal_lm.h>

namespace gemma::bindings {
namespace {

using Self = GemmaForCausalLMImpl;

std::variant<std::string, std::vector<std::string>> generate(Self& self,
                                                             const py::object& prompts,
                                                             const py::object& device,
                                                             int64_t output_len,
                                                             std::optional<double> temperature,
                                                             double top_p,
                                                             int64_t top_k,
                                                             const py::object& on_token,
                                                             const std::vector<int64_t>& stop_ids,
                                                             const py::object& kv_dtype) {
  const auto where = to_device(device);
  const auto options = generate_options(on_token, stop_ids, kv_dtype);
  const auto texts = to_texts(prompts);
  const py::gil_scoped_release release;
  auto results = self.generate(texts.all, where, output_len, temperature, top_p, top_k, options);
  if (texts.is_one) return std::move(results.front());
  return results;
}

py::dict to_transformers_state_dict(const Self& self) {
  py::dict state;
  for (const auto& [name, tensor] : to_hf_state_dict(self, self.config())) {
    state[py::str(name)] = tensor;
  }
  return state;
}

}  // namespace

void bind_causal_lm(py::module_& m) {
  ModuleClass<Self, LanguageModelImpl>(m, "GemmaForCausalLM", "model.py: GemmaForCausalLM.")
      .def(py::init<const GemmaConfig&>(), py::arg("config"), ReleaseGil())
      .def(
          "forward",
          [](Self& self, const at::Tensor& input_token_ids, const at::Tensor& input_positions,
             const std::optional<at::Tensor>& kv_write_indices,
             const std::vector<KVCache>& kv_caches, const at::Tensor& mask,
             const at::Tensor& output_positions, const std::optional<at::Tensor>& temperatures,
             const at::Tensor& top_ps, const at::Tensor& top_ks,
             const std::optional<at::Tensor>& local_mask, const py::kwargs& /*ignored*/) {
            const py::gil_scoped_release release;
            return self.forward(input_token_ids, input_positions, kv_write_indices, kv_caches, mask,
                                output_positions, temperatures, top_ps, top_ks, local_mask);
          },
          py::arg("input_token_ids"), py::arg("input_positions"), py::arg("kv_write_indices"),
          py::arg("kv_caches"), py::arg("mask"), py::arg("output_positions"),
          py::arg("temperatures"), py::arg("top_ps"), py::arg("top_ks"),
          py::arg("local_mask") = py::none(),
          "-> (next_token_ids [B], logits [B, V]); writes kv_caches in place")
      .def("generate", generate, py::arg("prompts"), py::arg("device"), py::arg("output_len") = 100,
           py::arg("temperature") = 1.0, py::arg("top_p") = 0.95, py::arg("top_k") = 64,
           py::kw_only(), py::arg("on_token") = py::none(),
           py::arg("stop_ids") = std::vector<int64_t>(), py::arg("kv_dtype") = py::none(),
           "Continues a prompt (str -> str) or several (list -> list).")
      .def(
          "generate_ids",
          [](Self& self, const std::vector<std::vector<int64_t>>& prompts, const py::object& device,
             int64_t output_len, std::optional<double> temperature, double top_p, int64_t top_k,
             const py::object& on_token, const std::vector<int64_t>& stop_ids,
             const py::object& kv_dtype) {
            const auto where = to_device(device);
            const auto options = generate_options(on_token, stop_ids, kv_dtype);
            const py::gil_scoped_release release;
            return self.generate_ids(prompts, where, output_len, temperature, top_p, top_k,
                                     options);
          },
          py::arg("prompts"), py::arg("device"), py::arg("output_len") = 100,
          py::arg("temperature") = 1.0, py::arg("top_p") = 0.95, py::arg("top_k") = 64,
          py::kw_only(), py::arg("on_token") = py::none(),
          py::arg("stop_ids") = std::vector<int64_t>(), py::arg("kv_dtype") = py::none(),
          "generate() from token ids to token ids, bos included: list[list[int]] to the same.")
      .def_static("from_transformers", from_transformers<Self>, py::arg("model"),
                  py::arg("tokenizer") = py::none(),
                  "A model with the weights of one of Hugging Face transformers, in memory.")
      .def("to_transformers_state_dict", to_transformers_state_dict,
           "The weights under the names of transformers.");
}

}  // namespace gemma::bindings
