#include "bindings.h"

#include <gemma/modules/mlp.h>

namespace gemma::bindings {

void bind_mlp(py::module_& m) {
  ModuleClass<GemmaMLPImpl>(m, "GemmaMLP", "model.py: GemmaMLP.")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("hidden_size"), py::arg("intermediate_size"),
           py::arg("quant"))
      .def(
          "forward", [](GemmaMLPImpl& self, const torch::Tensor& x) { return self.forward(x); },
          py::arg("x"), ReleaseGil(), "[..., E] -> [..., E]");
}

}  // namespace gemma::bindings
