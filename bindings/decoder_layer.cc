#include "bindings.h"

#include <gemma/modules/decoder_layer.h>

namespace gemma::bindings {

void bind_decoder_layer(py::module_& m) {
  ModuleClass<DecoderLayerImpl>(m, "DecoderLayer",
                                "What GemmaDecoderLayer and Gemma2DecoderLayer share.")
      .def("forward", &DecoderLayerImpl::forward, py::arg("hidden_states"), py::arg("freqs_cis"),
           py::arg("kv_write_indices"), py::arg("kv_cache"), py::arg("mask"), py::arg("local_mask"),
           ReleaseGil(), "hidden_states [B, L, E] -> [B, L, E]; writes kv_cache in place")
      .def_property_readonly("attn_type", &DecoderLayerImpl::attn_type);

  ModuleClass<GemmaDecoderLayerImpl, DecoderLayerImpl>(m, "GemmaDecoderLayer",
                                                       "model.py: GemmaDecoderLayer (Gemma 1).")
      .def(py::init<const GemmaConfig&>(), py::arg("config"));

  using Gemma2 = Gemma2DecoderLayerImpl;
  ModuleClass<Gemma2, DecoderLayerImpl>(m, "Gemma2DecoderLayer",
                                        "model.py: Gemma2DecoderLayer (Gemma 2 and 3).")
      .def(py::init<const GemmaConfig&, AttentionType>(), py::arg("config"), py::arg("attn_type"))
      .def_property_readonly(
          "pre_feedforward_layernorm",
          [](Gemma2& self) { return module_or_none(self.pre_feedforward_layernorm); })
      .def_property_readonly("post_feedforward_layernorm", [](Gemma2& self) {
        return module_or_none(self.post_feedforward_layernorm);
      });
}

}  // namespace gemma::bindings
