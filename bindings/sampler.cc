#include "bindings.h"

#include <gemma/modules/sampler.h>

namespace gemma::bindings {

void bind_sampler(py::module_& m) {
  ModuleClass<SamplerImpl>(m, "Sampler", "model.py: Sampler.")
      .def(py::init<int64_t, const GemmaConfig&>(), py::arg("vocab_size"), py::arg("config"))
      .def(
          "forward",
          [](SamplerImpl& self, const at::Tensor& embedding, const at::Tensor& hidden_states,
             const at::Tensor& output_positions, const std::optional<at::Tensor>& temperatures,
             const at::Tensor& top_ps, const at::Tensor& top_ks,
             const std::optional<at::Tensor>& embedding_bias) {
            return self.forward(embedding, hidden_states, output_positions, temperatures, top_ps,
                                top_ks, embedding_bias);
          },
          py::arg("embedding"), py::arg("hidden_states"), py::arg("output_positions"),
          py::arg("temperatures"), py::arg("top_ps"), py::arg("top_ks"),
          py::arg("embedding_bias") = py::none(), ReleaseGil(),
          "-> (next_token_ids [B], logits [B, V])")
      .def_property_readonly("vocab_size", &SamplerImpl::vocab_size)
      .def_property_readonly("config", &SamplerImpl::config);
}

}  // namespace gemma::bindings
