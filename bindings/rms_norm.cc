#include "bindings.h"

#include <gemma/modules/rms_norm.h>

namespace gemma::bindings {

void bind_rms_norm(py::module_& m) {
  ModuleClass<RMSNormImpl>(m, "RMSNorm", "model.py: RMSNorm.")
      .def(py::init<int64_t, double, bool>(), py::arg("dim"), py::arg("eps") = 1e-6,
           py::arg("add_unit_offset") = true)
      .def("forward", &RMSNormImpl::forward, py::arg("x"), ReleaseGil(), "[..., dim] -> [..., dim]")
      .def_property_readonly("eps", &RMSNormImpl::eps)
      .def_property_readonly("add_unit_offset", &RMSNormImpl::add_unit_offset);
  m.attr("GemmaRMSNorm") = m.attr("RMSNorm");  // What transformers calls the same layer.
}

}  // namespace gemma::bindings
