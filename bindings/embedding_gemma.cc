#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "language_model.h"

#include <gemma/models/embedding_gemma.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>

namespace gemma::bindings {
namespace {

using Model = EmbeddingGemmaImpl;

std::shared_ptr<Model> from_pretrained(const std::filesystem::path& directory,
                                       std::optional<torch::Dtype> dtype,
                                       const std::string& numerics,
                                       const py::object& progress,
                                       bool mmap) {
  auto config = read_embedding_gemma_config(directory);
  if (dtype) config.text.dtype = dtype_to_string(*dtype);
  std::shared_ptr<Model> model;
  loaded(directory, progress, {.mmap = mmap},
         [&](const std::string& path, const LoadOptions& options) {
           const DefaultDtypeGuard guard(config.text.get_dtype());
           model = std::make_shared<Model>(config);
           return model->load_weights(path, options);
         });
  model->set_numerics(numerics_from_string(numerics));
  return model;
}

EmbedOptions embed_options(std::optional<int64_t> dim,
                           std::optional<std::string> prompt_name,
                           bool truncate) {
  return {.dim = dim,
          .prompt_name = std::move(prompt_name),
          .truncate = truncate,
          .on_layer = signal_check()};
}

at::Tensor embed(Model& self,
                 const py::iterable& texts,
                 std::optional<int64_t> dim,
                 const std::optional<std::string>& prompt_name,
                 bool truncate) {
  if (py::isinstance<py::str>(texts)) {
    throw py::type_error("embed: texts is a str, but must be a list of them");
  }
  std::vector<std::string> all;
  for (const auto text : texts) all.push_back(to_text(text));
  const auto options = embed_options(dim, prompt_name, truncate);
  const py::gil_scoped_release release;
  return self.embed(all, options);
}

}  // namespace

void bind_embedding_gemma(py::module_& m) {
  ModuleClass<TextEncoderImpl>(m, "TextEncoder", "Layers whose tokens see the whole text.")
      .def(
          "forward",
          [](TextEncoderImpl& self, const std::vector<std::vector<int64_t>>& texts) {
            const auto on_layer = signal_check();
            const py::gil_scoped_release release;
            const torch::NoGradGuard no_grad;
            return self.forward(texts, on_layer);
          },
          py::arg("texts"), "Token ids of texts -> [T, E], of all their tokens.");
  ModuleClass<DenseImpl>(m, "Dense", "sentence_transformers: Dense.")
      .def("forward", &DenseImpl::forward, py::arg("x"), ReleaseGil(), "[N, in] -> [N, out]");
  ModuleClass<Model>(m, "EmbeddingGemma", "Texts to vectors of length 1.")
      .def_static("from_pretrained", from_pretrained, py::arg("directory"),
                  py::arg("dtype") = py::none(), py::arg("numerics") = "exact",
                  py::arg("progress") = py::none(), py::kw_only(), py::arg("mmap") = false,
                  "The model in a directory of sentence-transformers.")
      .def("load_weights", load_weights<Model>, py::arg("directory"),
           py::arg("progress") = py::none(), py::kw_only(), py::arg("mmap") = false,
           "Loads a directory of sentence-transformers; progress(LoadProgress) after each tensor.")
      .def("embed", embed, py::arg("texts"), py::arg("dim") = py::none(),
           py::arg("prompt_name") = py::none(), py::kw_only(), py::arg("truncate") = false,
           "-> float32 [N, dim], rows of length 1")
      .def(
          "encode",
          [](const Model& self, const py::object& text,
             const std::optional<std::string>& prompt_name, bool truncate) {
            return self.encode(to_text(text), embed_options(std::nullopt, prompt_name, truncate));
          },
          py::arg("text"), py::arg("prompt_name") = py::none(), py::kw_only(),
          py::arg("truncate") = false, "The ids that a text becomes.")
      .def(
          "forward",
          [](Model& self, const std::vector<std::vector<int64_t>>& texts) {
            const auto on_layer = signal_check();
            const py::gil_scoped_release release;
            return self.forward(texts, on_layer);
          },
          py::arg("texts"), "Token ids of texts -> float32 [N, dim], rows of length 1")
      .def_property_readonly("dim", [](const Model& self) { return self.config().dim(); })
      .def_property_readonly("text_config", [](const Model& self) { return self.config().text; })
      .def_property_readonly("prompts", [](const Model& self) { return self.config().prompts; })
      .def_property_readonly("default_prompt_name",
                             [](const Model& self) { return self.config().default_prompt_name; })
      .def_property_readonly("tokenizer", &Model::tokenizer);
}

}  // namespace gemma::bindings
