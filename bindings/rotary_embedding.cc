#include "bindings.h"

#include <gemma/modules/rotary_embedding.h>
#include <gemma/ops/rotary.h>

namespace gemma::bindings {

void bind_rotary_embedding(py::module_& m) {
  using Self = GemmaRotaryEmbeddingImpl;
  ModuleClass<Self>(m, "GemmaRotaryEmbedding",
                    "modeling_gemma.py of transformers: GemmaRotaryEmbedding.")
      .def(py::init<int64_t, int64_t, double>(), py::arg("dim"),
           py::arg("max_position_embeddings") = 2048, py::arg("base") = 10000.0)
      .def("forward", &Self::forward, py::arg("x"), py::arg("position_ids"), ReleaseGil(),
           "position_ids [B, T] -> (cos, sin), [B, T, dim] each, in x's dtype")
      .def_property_readonly("dim", &Self::dim)
      .def_property_readonly("max_position_embeddings", &Self::max_position_embeddings)
      .def_property_readonly("base", &Self::base);
  m.def("apply_rotary_pos_emb", &apply_rotary_pos_emb, py::arg("q"), py::arg("k"), py::arg("cos"),
        py::arg("sin"), py::arg("unsqueeze_dim") = 1, ReleaseGil(),
        "modeling_gemma.py of transformers: apply_rotary_pos_emb. -> (q, k)");
}

}  // namespace gemma::bindings
