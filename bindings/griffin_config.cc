#include <filesystem>
#include <map>
#include <vector>

#include "recurrentgemma.h"

#include <gemma/config/griffin_config.h>
#include <gemma/weights/griffin_checkpoint.h>

namespace gemma::bindings {
namespace {

rg::GriffinConfig from_torch_params(const std::map<std::string, at::Tensor>& params,
                                    std::optional<rg::Preset> preset,
                                    std::optional<bool> embeddings_scale_by_sqrt_dim,
                                    std::optional<int64_t> attention_window_size,
                                    std::optional<double> logits_soft_cap,
                                    std::optional<rg::ScanType> scan_type,
                                    std::optional<int64_t> max_sequence_length) {
  const auto sizes_of = [&](const std::string& name) {
    const auto found = params.find(name);
    return found == params.end() ? std::vector<int64_t>() : found->second.sizes().vec();
  };
  return rg::config_from_sizes(sizes_of, preset,
                               {.embeddings_scale_by_sqrt_dim = embeddings_scale_by_sqrt_dim,
                                .attention_window_size = attention_window_size,
                                .logits_soft_cap = logits_soft_cap,
                                .scan_type = scan_type,
                                .max_sequence_length = max_sequence_length});
}

// Of a class that pybind11 did not make.
template <typename Function, typename... Extra>
void def_static(const py::object& type,
                const char* name,
                Function function,
                const Extra&... extra) {
  type.attr(name) =
      py::staticmethod(py::cpp_function(function, py::name(name), py::scope(type), extra...));
}

template <typename Function>
void def_property(const py::object& type, const char* name, Function function) {
  const auto property = py::module_::import("builtins").attr("property");
  type.attr(name) = property(py::cpp_function(function, py::name(name), py::is_method(type)));
}

}  // namespace

void bind_griffin_config(py::module_& part) {
  py::native_enum<rg::TemporalBlockType>(part, "TemporalBlockType", "enum.Enum",
                                         "common.py: TemporalBlockType.")
      .value("ATTENTION", rg::TemporalBlockType::kAttention)
      .value("RECURRENT", rg::TemporalBlockType::kRecurrent)
      .finalize();
  py::native_enum<rg::ScanType>(part, "ScanType", "enum.Enum", "common.py: ScanType.")
      .value("AUTO", rg::ScanType::kAuto)
      .value("LINEAR_NATIVE", rg::ScanType::kLinearNative)
      .value("ASSOCIATIVE_NATIVE", rg::ScanType::kAssociativeNative)
      .value("LINEAR_PALLAS", rg::ScanType::kLinearPallas)
      .finalize();
  py::native_enum<rg::Preset>(part, "Preset", "enum.Enum", "common.py: Preset.")
      .value("GRIFFIN_PAPER_7B", rg::Preset::kGriffinPaper7B)
      .value("HAWK_PAPER_7B", rg::Preset::kHawkPaper7B)
      .value("RECURRENT_GEMMA_2B_V1", rg::Preset::kRecurrentGemma2BV1)
      .value("RECURRENT_GEMMA_9B_V1", rg::Preset::kRecurrentGemma9BV1)
      .finalize();

  const auto config = make_named_tuple<rg::GriffinConfig>(
      part, "common.py: GriffinConfig.", py::make_tuple(py::none(), rg::ScanType::kAuto));
  def_static(config, "from_preset", &rg::GriffinConfig::from_preset, py::arg("preset"),
             py::arg("vocab_size") = 256'000, py::arg("max_sequence_length") = py::none());
  def_static(config, "from_torch_params", from_torch_params, py::arg("params"),
             py::arg("preset") = py::none(), py::arg("embeddings_scale_by_sqrt_dim") = py::none(),
             py::arg("attention_window_size") = py::none(), py::arg("logits_soft_cap") = py::none(),
             py::arg("scan_type") = py::none(), py::arg("max_sequence_length") = py::none());
  def_static(
      config, "from_pretrained",
      [](const std::filesystem::path& path) { return rg::config_from_pretrained(path); },
      py::arg("path"));
  def_property(config, "max_cache_length",
               [](const rg::GriffinConfig& self) { return self.max_cache_length(); });
  def_property(config, "num_layers",
               [](const rg::GriffinConfig& self) { return self.num_layers(); });
}

}  // namespace gemma::bindings
