#include "language_model.h"

namespace gemma::bindings {
namespace {

LoadReport load_weights(LanguageModelImpl& self,
                        const py::object& model_path,
                        const py::object& progress) {
  const auto path = py::module_::import("os").attr("fspath")(model_path).cast<std::string>();
  ProgressCallback callback = [&progress](const LoadProgress& state) {
    const py::gil_scoped_acquire gil;
    if (!progress.is_none()) progress(state);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
  const py::gil_scoped_release release;
  return self.load_weights(path, callback);
}

// Ctrl-C, or any other signal whose Python handler raises, ends the generation.
void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

GenerateOptions generate_options(const py::object& on_token,
                                 const std::vector<int64_t>& stop_ids,
                                 const py::object& kv_dtype) {
  GenerateOptions options{.on_step = [](int64_t /*step*/) { check_signals(); },
                          .on_token = {},
                          .on_encode = [](int64_t /*done*/, int64_t /*total*/) { check_signals(); },
                          .stop_ids = stop_ids};
  if (!kv_dtype.is_none()) options.kv_dtype = kv_dtype.cast<torch::ScalarType>();
  if (!on_token.is_none()) {
    options.on_token = [&on_token](int64_t row, int64_t token) {
      const py::gil_scoped_acquire gil;
      on_token(row, token);
    };
  }
  return options;
}

void bind_language_model(py::module_& m) {
  py::class_<LoadReport>(m, "LoadReport", "What load_weights did, by name.")
      .def_readonly("loaded", &LoadReport::loaded)
      .def_readonly("missing", &LoadReport::missing)
      .def_readonly("unexpected", &LoadReport::unexpected);
  py::class_<LoadProgress>(m, "LoadProgress")
      .def_readonly("tensor", &LoadProgress::tensor)
      .def_readonly("tensors_done", &LoadProgress::tensors_done)
      .def_readonly("tensors_total", &LoadProgress::tensors_total)
      .def_readonly("bytes_done", &LoadProgress::bytes_done)
      .def_readonly("bytes_total", &LoadProgress::bytes_total);

  using Self = LanguageModelImpl;
  ModuleClass<Self>(m, "LanguageModel", "What the text and the multimodal model share.")
      .def("load_weights", load_weights, py::arg("model_path"), py::arg("progress") = py::none(),
           "Loads a checkpoint; progress(LoadProgress) after each tensor.")
      .def_property_readonly("config", &Self::config)
      .def_property_readonly("tokenizer", &Self::tokenizer);
}

}  // namespace gemma::bindings
