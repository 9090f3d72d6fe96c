#include "bindings.h"

#include <gemma/vision/siglip_vision_model.h>

namespace gemma::bindings {

void bind_siglip_vision_model(py::module_& m) {
  ModuleClass<BiasedLinearImpl>(m, "BiasedLinear", "torch.nn.Linear.")
      .def(py::init<int64_t, int64_t>(), py::arg("in_features"), py::arg("out_features"))
      .def(
          "forward", [](BiasedLinearImpl& self, const torch::Tensor& x) { return self.forward(x); },
          py::arg("x"), ReleaseGil());
  ModuleClass<LayerNormImpl>(m, "LayerNorm", "torch.nn.LayerNorm.")
      .def(py::init<int64_t, double>(), py::arg("dim"), py::arg("eps"))
      .def("forward", &LayerNormImpl::forward, py::arg("x"), ReleaseGil());
  ModuleClass<PatchEmbeddingImpl>(m, "PatchEmbedding", "torch.nn.Conv2d, flattened.")
      .def(py::init<int64_t, int64_t, int64_t, bool>(), py::arg("in_channels"),
           py::arg("out_channels"), py::arg("patch_size"), py::arg("use_bias"))
      .def("forward", &PatchEmbeddingImpl::forward, py::arg("pixels"), ReleaseGil());
  ModuleClass<SiglipAttentionImpl>(m, "SiglipAttention", "siglip_vision_model.py: SiglipAttention.")
      .def(py::init<int64_t, int64_t, int64_t>(), py::arg("dim"), py::arg("num_heads"),
           py::arg("head_dim"))
      .def("forward", &SiglipAttentionImpl::forward, py::arg("x"), ReleaseGil(),
           "[N, P, E] -> [N, P, E]");
  ModuleClass<SiglipMLPImpl>(m, "SiglipMLP", "siglip_vision_model.py: SiglipMLP.")
      .def(py::init<int64_t, int64_t>(), py::arg("hidden_size"), py::arg("intermediate_size"))
      .def("forward", &SiglipMLPImpl::forward, py::arg("x"), ReleaseGil(), "[..., E] -> [..., E]");
  ModuleClass<SiglipEncoderBlockImpl>(m, "SiglipEncoderBlock",
                                      "siglip_vision_model.py: SiglipEncoderBlock.")
      .def(py::init<const SiglipVisionModelConfig&>(), py::arg("config"))
      .def("forward", &SiglipEncoderBlockImpl::forward, py::arg("x"), ReleaseGil(),
           "[N, P, E] -> [N, P, E]");
  ModuleClass<AveragePool2DImpl>(m, "AveragePool2D", "siglip_vision_model.py: AveragePool2D.")
      // The reference's takes the config, and does not read it.
      .def(py::init([](const SiglipVisionModelConfig&) {
             return std::make_shared<AveragePool2DImpl>();
           }),
           py::arg("config"))
      .def("forward", &AveragePool2DImpl::forward, py::arg("x"), ReleaseGil(),
           "[N, P, E] -> [N, P / 16, E]");
  ModuleClass<SiglipVisionModelImpl>(m, "SiglipVisionModel",
                                     "siglip_vision_model.py: SiglipVisionModel.")
      .def(py::init<const SiglipVisionModelConfig&>(), py::arg("config"), ReleaseGil())
      .def(
          "forward",
          [](SiglipVisionModelImpl& self, const at::Tensor& pixel_values) {
            return self.forward(pixel_values);
          },
          py::arg("pixel_values"), ReleaseGil(), "[N, C, image_size, image_size] -> [N, U, E]")
      .def_property_readonly(
          "avg_pool",
          [](const SiglipVisionModelImpl& self) { return module_or_none(self.avg_pool); })
      .def_property_readonly("config", &SiglipVisionModelImpl::config);
}

}  // namespace gemma::bindings
