#include "bindings.h"

#include <gemma/ops/rotary.h>

namespace gemma::bindings {

void bind_rotary(py::module_& m) {
  m.def("precompute_freqs_cis", &precompute_freqs_cis, py::arg("dim"), py::arg("end"),
        py::arg("theta") = 10000.0, py::arg("rope_scaling_factor") = 1, ReleaseGil(),
        "model.py: precompute_freqs_cis. -> complex64 [end, dim / 2]");
  m.def("apply_rotary_emb", &apply_rotary_emb, py::arg("x"), py::arg("freqs_cis"), ReleaseGil(),
        "model.py: apply_rotary_emb. x [B, L, heads, D], freqs_cis [L, D / 2] -> [B, L, heads, D]");
}

}  // namespace gemma::bindings
