#include "bindings.h"

#include <gemma/modules/embedding.h>

namespace gemma::bindings {

void bind_embedding(py::module_& m) {
  ModuleClass<EmbeddingImpl>(m, "Embedding", "model.py: Embedding.")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("num_embeddings"), py::arg("embedding_dim"),
           py::arg("quant"))
      .def("forward", &EmbeddingImpl::forward, py::arg("x"), ReleaseGil(),
           "[...] int64 -> [..., embedding_dim]")
      .def_property_readonly("quant",
                             [](const EmbeddingImpl& self) { return self.view().quantized(); });
}

}  // namespace gemma::bindings
