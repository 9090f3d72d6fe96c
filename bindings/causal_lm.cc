#include <variant>
#include <vector>

#include "bindings.h"

#include <gemma/models/causal_lm.h>

namespace gemma::bindings {
namespace {

using Self = GemmaForCausalLMImpl;
using Texts = std::vector<std::string>;

// Ctrl-C, or any other signal whose Python handler raises, ends the generation.
void check_signals(int64_t /*step*/) {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

std::variant<std::string, Texts> generate(Self& self,
                                          const std::variant<std::string, Texts>& prompts,
                                          const py::object& device,
                                          int64_t output_len,
                                          std::optional<double> temperature,
                                          double top_p,
                                          int64_t top_k,
                                          const py::object& on_token,
                                          const std::vector<int64_t>& stop_ids,
                                          const py::object& kv_dtype) {
  const auto where = to_device(device);
  GenerateOptions options{.on_step = check_signals, .on_token = {}, .stop_ids = stop_ids};
  if (!kv_dtype.is_none()) options.kv_dtype = kv_dtype.cast<torch::ScalarType>();
  if (!on_token.is_none()) {
    options.on_token = [&on_token](int64_t row, int64_t token) {
      const py::gil_scoped_acquire gil;
      on_token(row, token);
    };
  }
  const py::gil_scoped_release release;
  return std::visit(
      [&](const auto& texts) -> std::variant<std::string, Texts> {
        return self.generate(texts, where, output_len, temperature, top_p, top_k, options);
      },
      prompts);
}

LoadReport load_weights(Self& self, const py::object& model_path, const py::object& progress) {
  const auto path = py::module_::import("os").attr("fspath")(model_path).cast<std::string>();
  ProgressCallback callback = [&progress](const LoadProgress& state) {
    const py::gil_scoped_acquire gil;
    if (!progress.is_none()) progress(state);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
  const py::gil_scoped_release release;
  return self.load_weights(path, callback);
}

}  // namespace

void bind_causal_lm(py::module_& m) {
  py::class_<LoadReport>(m, "LoadReport", "What load_weights did, by name.")
      .def_readonly("loaded", &LoadReport::loaded)
      .def_readonly("missing", &LoadReport::missing)
      .def_readonly("unexpected", &LoadReport::unexpected);
  py::class_<LoadProgress>(m, "LoadProgress")
      .def_readonly("tensor", &LoadProgress::tensor)
      .def_readonly("tensors_done", &LoadProgress::tensors_done)
      .def_readonly("tensors_total", &LoadProgress::tensors_total)
      .def_readonly("bytes_done", &LoadProgress::bytes_done)
      .def_readonly("bytes_total", &LoadProgress::bytes_total);

  ModuleClass<Self>(m, "GemmaForCausalLM", "model.py: GemmaForCausalLM.")
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
      .def("load_weights", load_weights, py::arg("model_path"), py::arg("progress") = py::none(),
           "Loads a .ckpt file or a directory of shards; progress(LoadProgress) after each tensor.")
      .def_property_readonly("config", &Self::config)
      .def_property_readonly("tokenizer", &Self::tokenizer);
}

}  // namespace gemma::bindings
