#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "image.h"
#include "language_model.h"

#include <gemma/generate/paligemma.h>
#include <gemma/text/locations.h>
#include <gemma/vision/paligemma_preprocessor.h>
#include <gemma/weights/hf/hf_paligemma.h>
#include <gemma/weights/hf/hf_state_dict.h>

namespace gemma::bindings {
namespace {

using Pali = PaliGemmaForConditionalGenerationImpl;

// One image, several, or none.
std::vector<Image> to_images(const py::object& given) {
  if (given.is_none()) return {};
  if (is_pil_image(given)) return {given.cast<Image>()};
  try {
    return given.cast<std::vector<Image>>();
  } catch (const py::cast_error&) {
    throw py::type_error(
        fmt::format("generate: images is a PIL image, a list of them, or None for each prompt, "
                    "but has {}",
                    py::repr(given).cast<std::string>()));
  }
}

std::vector<Prompt> with_images(const std::vector<std::string>& texts, const py::list& images) {
  if (images.size() != texts.size()) {
    throw py::value_error(fmt::format("generate: {} prompts, but images for {}; give one each",
                                      texts.size(), images.size()));
  }
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < texts.size(); ++i) {
    prompts.emplace_back();
    for (auto& image : to_images(images[i])) prompts.back().emplace_back(std::move(image));
    prompts.back().emplace_back(texts[i]);
  }
  return prompts;
}

py::object answer(Pali& self,
                  const py::object& prompts,
                  const py::object& images,
                  int64_t output_len,
                  std::optional<double> temperature,
                  double top_p,
                  int64_t top_k,
                  const py::object& on_token,
                  const std::vector<int64_t>& stop_ids,
                  const py::object& kv_dtype) {
  const auto options = generate_options(on_token, stop_ids, kv_dtype);
  const auto texts = to_texts(prompts);
  py::list pictures;
  if (texts.is_one) {
    pictures.append(images);
  } else {
    pictures = py::list(images);
  }
  const auto given = with_images(texts.all, pictures);
  std::vector<std::string> answers;
  {
    const py::gil_scoped_release release;
    const auto device = self.embedder->weight.device();
    answers = self.generate(given, device, output_len, temperature, top_p, top_k, options);
  }
  return texts.is_one ? py::object(py::str(answers.front())) : py::object(py::cast(answers));
}

std::shared_ptr<Pali> from_transformers_paligemma(const py::object& model,
                                                  const std::optional<std::string>& tokenizer) {
  const auto json = model.attr("config").attr("to_json_string")(false).cast<std::string>();
  const auto dtype = model.attr("dtype").cast<torch::ScalarType>();
  const auto state = model.attr("state_dict")().cast<std::map<std::string, at::Tensor>>();
  auto config = paligemma_from_hf(json, "from_transformers", tokenizer);
  config.text_config.dtype = config.vision_config.dtype = dtype_to_string(dtype);
  config.text_config.tokenizer = tokenizer;
  const py::gil_scoped_release release;
  const DefaultDtypeGuard guard(dtype);
  auto ours = std::make_shared<Pali>(config);
  load_state_dict(
      *ours, from_hf_state_dict(*ours, config.text_config, StateDict(state.begin(), state.end())),
      /*strict=*/true, /*assign=*/true);
  ours->eval();
  return ours;
}

void bind_paligemma_model(py::module_& m) {
  ModuleClass<PaliGemmaMultiModalProjectorImpl>(
      m, "PaliGemmaMultiModalProjector", "modeling_paligemma.py: PaliGemmaMultiModalProjector.")
      .def(py::init<const PaliGemmaConfig&>(), py::arg("config"))
      .def("forward", &PaliGemmaMultiModalProjectorImpl::forward, py::arg("image_features"),
           ReleaseGil());
  ModuleClass<Pali, LanguageModelImpl>(m, "PaliGemmaForConditionalGeneration",
                                       "modeling_paligemma.py: PaliGemmaForConditionalGeneration.")
      .def(py::init<const PaliGemmaConfig&>(), py::arg("config"), ReleaseGil())
      .def(
          "forward",
          [](Pali& self, const at::Tensor& input_ids, const std::optional<at::Tensor>& pixel_values,
             const std::optional<at::Tensor>& token_type_ids) {
            const auto check_layer = signal_check();
            const py::gil_scoped_release release;
            return self.forward(input_ids, pixel_values, token_type_ids, check_layer);
          },
          py::arg("input_ids"), py::arg("pixel_values") = py::none(),
          py::arg("token_type_ids") = py::none(), "-> logits [B, L, V]")
      .def(
          "encode_images",
          [](Pali& self, const at::Tensor& pixel_values) {
            return self.encode_images(pixel_values);
          },
          py::arg("pixel_values"), ReleaseGil(), "[n, C, height, width] -> [n, P, E]")
      .def("generate", answer, py::arg("prompts"), py::arg("images"), py::arg("output_len") = 100,
           py::arg("temperature") = py::none(), py::arg("top_p") = 1.0, py::arg("top_k") = 64,
           py::kw_only(), py::arg("on_token") = py::none(),
           py::arg("stop_ids") = std::vector<int64_t>(), py::arg("kv_dtype") = py::none(),
           "Answers a prompt (str -> str) or several (list -> list).")
      .def_static("from_transformers", from_transformers_paligemma, py::arg("model"),
                  py::arg("tokenizer") = py::none(),
                  "A model with the weights of one of Hugging Face transformers, in memory.")
      .def_property_readonly("config", &Pali::paligemma_config);
}

}  // namespace

void bind_paligemma(py::module_& m) {
  bind_paligemma_model(m);
  py::class_<LocatedObject>(m, "LocatedObject", "A thing that an answer names.")
      .def_property_readonly("place",
                             [](const LocatedObject& self) -> std::optional<std::vector<int64_t>> {
                               if (!self.place) return std::nullopt;
                               return std::vector(self.place->begin(), self.place->end());
                             })
      .def_readonly("mask", &LocatedObject::mask)
      .def_readonly("label", &LocatedObject::label)
      .def(
          "box",
          [](const LocatedObject& self, int64_t height,
             int64_t width) -> std::optional<std::tuple<double, double, double, double>> {
            const auto box = self.box(height, width);
            if (!box) return std::nullopt;
            return std::tuple{box->x0, box->y0, box->x1, box->y1};
          },
          py::arg("height"), py::arg("width"), "(x0, y0, x1, y1) in pixels, or None");
  m.def(
      "parse_locations", [](const py::object& answer) { return parse_locations(to_text(answer)); },
      py::arg("answer"), "The things in an answer.");
  m.def("paligemma_pixel_values", &paligemma_pixel_values, py::arg("image"), py::arg("image_size"),
        ReleaseGil(), "What PaliGemma sees of an image, float32 [3, image_size, image_size].");
}

}  // namespace gemma::bindings
