#include "bindings.h"

#include <gemma/models/summary.h>

namespace gemma::bindings {

void bind_summary(py::module_& m) {
  m.def(
      "summary",
      [](const LanguageModelImpl& model, int64_t batch_size, int64_t length, int64_t depth) {
        return summary(model, {.batch_size = batch_size, .length = length, .depth = depth});
      },
      py::arg("model"), py::arg("batch_size") = 1, py::arg("length") = 1, py::arg("depth") = 3,
      "A table of the model's modules, as torchinfo.summary lays it out.");
}

}  // namespace gemma::bindings
