#include "language_model.h"

#include <chrono>
#include <memory>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/weights/load_tokenizer.h>

namespace gemma::bindings {
namespace {

// Lets Ctrl-C, or any other signal whose Python handler raises, end a generation. Looks a few times
// a second only, as it waits for the GIL, which other threads may be busy with.
class SignalCheck {
 public:
  void operator()() {
    const auto now = Clock::now();
    if (now < next_) return;
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    next_ = Clock::now() + std::chrono::milliseconds(50);
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point next_ = Clock::now();
};

}  // namespace

LayerCallback signal_check() {
  return [check = std::make_shared<SignalCheck>()](int64_t /*done*/, int64_t /*total*/) {
    (*check)();
  };
}

LoadReport loaded(const std::filesystem::path& model_path,
                  const py::object& progress,
                  LoadOptions options,
                  const std::function<LoadReport(const std::string&, const LoadOptions&)>& load) {
  options.progress = [&progress](const LoadProgress& state) {
    const py::gil_scoped_acquire gil;
    if (!progress.is_none()) progress(state);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
  auto report = [&] {
    const py::gil_scoped_release release;
    return load(model_path.string(), options);
  }();
  const auto warning = describe_unexpected(report);
  if (!warning.empty() &&
      PyErr_WarnEx(PyExc_UserWarning, fmt::format("{}: {}", model_path.string(), warning).c_str(),
                   /*stack_level=*/1) != 0) {
    throw py::error_already_set();
  }
  return report;
}

std::string to_text(py::handle text) {
  if (!PyUnicode_Check(text.ptr())) {
    throw py::type_error(fmt::format("a text must be str, got {}",
                                     py::type::of(text).attr("__name__").cast<std::string>()));
  }
  Py_ssize_t size = 0;
  const char* const bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) {
    const py::error_already_set why;  // "'utf-8' codec can't encode character '\\ud800' in …"
    throw py::type_error(
        fmt::format("a text is not Unicode: {}", py::str(why.value()).cast<std::string>()));
  }
  return {bytes, static_cast<size_t>(size)};
}

Texts to_texts(const py::object& given) {
  if (py::isinstance<py::str>(given)) return {{to_text(given)}, /*is_one=*/true};
  Texts texts{{}, /*is_one=*/false};
  for (const auto text : given) texts.all.push_back(to_text(text));
  return texts;
}

GenerateOptions generate_options(const py::object& on_token,
                                 const std::vector<int64_t>& stop_ids,
                                 const py::object& kv_dtype) {
  const auto check_layer = signal_check();
  GenerateOptions options{.on_layer = check_layer, .on_encode = check_layer, .stop_ids = stop_ids};
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

  ModuleClass<EngineModelImpl>(m, "EngineModel", "A model that an Engine runs.")
      .def_property_readonly("tokenizer", &EngineModelImpl::tokenizer)
      .def(
          "set_tokenizer",
          [](EngineModelImpl& self, const std::filesystem::path& path) {
            if (self.has_tokenizer()) {
              throw std::runtime_error(
                  "set_tokenizer: the model has a tokenizer, which an engine may use");
            }
            self.set_tokenizer(load_tokenizer(path.string(), self.vocab_size()));
          },
          py::arg("path"));

  using Self = LanguageModelImpl;
  ModuleClass<Self, EngineModelImpl>(m, "LanguageModel",
                                     "What the text and the multimodal model share.")
      .def(
          "load_weights",
          [](Self& self, const std::filesystem::path& model_path, const py::object& progress,
             bool mmap, bool keep_blocks) {
            return loaded(model_path, progress, {.mmap = mmap, .keep_blocks = keep_blocks},
                          [&](const std::string& path, const LoadOptions& options) {
                            return self.load_weights(path, options);
                          });
          },
          py::arg("model_path"), py::arg("progress") = py::none(), py::kw_only(),
          py::arg("mmap") = false, py::arg("keep_blocks") = false,
          "Loads a checkpoint; progress(LoadProgress) after each tensor. mmap=True leaves weights "
          "in the file, which nobody may write to then; keep_blocks=True those of a GGUF in its "
          "blocks.")
      .def_property_readonly("config", &Self::config);
}

}  // namespace gemma::bindings
