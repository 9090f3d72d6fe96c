#include "bindings.h"

#include <gemma/models/gemma_model.h>

namespace gemma::bindings {

void bind_gemma_model(py::module_& m) {
  ModuleClass<GemmaModelImpl>(m, "GemmaModel", "model.py: GemmaModel.")
      .def(py::init<const GemmaConfig&>(), py::arg("config"))
      .def(
          "forward",
          [](GemmaModelImpl& self, const at::Tensor& hidden_states, const FreqsCis& freqs_cis,
             const at::Tensor& kv_write_indices, const std::vector<KVCache>& kv_caches,
             const at::Tensor& mask, const std::optional<at::Tensor>& local_mask) {
            return self.forward(hidden_states, freqs_cis, kv_write_indices, kv_caches, mask,
                                local_mask);
          },
          py::arg("hidden_states"), py::arg("freqs_cis"), py::arg("kv_write_indices"),
          py::arg("kv_caches"), py::arg("mask"), py::arg("local_mask"), ReleaseGil(),
          "hidden_states [B, L, E] -> [B, L, E]; writes kv_caches in place")
      .def_property_readonly("config", &GemmaModelImpl::config)
      .def_property_readonly("vocab_size", &GemmaModelImpl::vocab_size);
}

}  // namespace gemma::bindings
