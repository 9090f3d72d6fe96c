#include "bindings.h"

#include <gemma/modules/linear.h>

namespace gemma::bindings {

void bind_linear(py::module_& m) {
  ModuleClass<LinearImpl>(m, "Linear", "model.py: Linear.")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("in_features"), py::arg("out_features"),
           py::arg("quant"))
      .def(
          "forward", [](LinearImpl& self, const torch::Tensor& x) { return self.forward(x); },
          py::arg("x"), ReleaseGil(), "[..., in_features] -> [..., out_features]")
      .def_property_readonly("quant",
                             [](const LinearImpl& self) { return self.view().quantized(); });
}

}  // namespace gemma::bindings
