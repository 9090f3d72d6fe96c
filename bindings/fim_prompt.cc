#include <string>
#include <vector>

#include "bindings.h"

#include <gemma/generate/fim_prompt.h>

namespace gemma::bindings {

void bind_fim_prompt(py::module_& m) {
  py::class_<FimPrompt>(m, "FimPrompt", "The tokens of a prompt to fill in the middle.")
      .def(py::init<const Tokenizer&>(), py::arg("tokenizer"), py::keep_alive<1, 2>())
      .def(
          "encode",
          [](const FimPrompt& self, const py::str& prefix, const py::str& suffix,
             const py::iterable& files) {
            std::vector<std::string> texts;
            for (const auto& file : files) texts.push_back(to_text(file));
            const auto before = to_text(prefix);
            const auto after = to_text(suffix);
            const py::gil_scoped_release release;
            return self.encode(before, after, texts);
          },
          py::arg("prefix"), py::arg("suffix"), py::arg("files") = py::tuple())
      .def_property_readonly("stop_ids", &FimPrompt::stop_ids);
}

}  // namespace gemma::bindings
