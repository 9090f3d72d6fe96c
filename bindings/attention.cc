#include "bindings.h"

#include <gemma/modules/attention.h>

namespace gemma::bindings {

void bind_attention(py::module_& m) {
  using Self = GemmaAttentionImpl;
  ModuleClass<Self>(m, "GemmaAttention", "model.py: GemmaAttention.")
      .def(py::init<const GemmaConfig&, AttentionType>(), py::arg("config"), py::arg("attn_type"))
      .def("forward", &Self::forward, py::arg("hidden_states"), py::arg("freqs_cis"),
           py::arg("kv_write_indices"), py::arg("kv_cache"), py::arg("mask"),
           py::arg("local_mask") = py::none(), ReleaseGil(),
           "hidden_states [B, L, E] -> [B, L, E]; writes kv_cache in place")
      .def_property_readonly("query_norm",
                             [](Self& self) { return module_or_none(self.query_norm); })
      .def_property_readonly("key_norm", [](Self& self) { return module_or_none(self.key_norm); })
      .def_property_readonly("attn_type", &Self::attn_type)
      .def_property_readonly("num_heads", &Self::num_heads)
      .def_property_readonly("num_kv_heads", &Self::num_kv_heads)
      .def_property_readonly(
          "num_queries_per_kv",
          [](const Self& self) { return self.num_heads() / self.num_kv_heads(); })
      .def_property_readonly("hidden_size",
                             [](const Self& self) { return self.qkv_proj->columns(); })
      .def_property_readonly("head_dim", &Self::head_dim)
      .def_property_readonly("q_size",
                             [](const Self& self) { return self.num_heads() * self.head_dim(); })
      .def_property_readonly("kv_size",
                             [](const Self& self) { return self.num_kv_heads() * self.head_dim(); })
      .def_property_readonly("scaling", &Self::scaling)
      .def_property_readonly("sliding_window_size", &Self::sliding_window_size)
      .def_property_readonly("attn_logit_softcapping", &Self::attn_logit_softcapping);
}

}  // namespace gemma::bindings
