#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "bindings.h"

#include <gemma/config/config.h>
#include <gemma/config/fields.h>
#include <gemma/config/paligemma_config.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/paligemma_checkpoint.h>

namespace gemma::bindings {
namespace {

// What a Python dataclass has, for a bound struct: construction by position or keyword, repr,
// equality, copies, pickles.
template <typename T>
class Dataclass {
 public:
  Dataclass(py::module_& m, const char* name, const char* doc)
      : class_(m, name, doc), name_(name) {}

  // Those that visit_fields has.
  Dataclass& fields() {
    visit_fields<T>([this](const auto& field) {
      const std::string name(field.name);
      class_.def_readwrite(name.c_str(), field.member);
      fields_.push_back(name);
    });
    return *this;
  }

  // A member that the constructor does not take.
  template <typename Member>
  Dataclass& attribute(const char* name, Member T::* member, const char* doc) {
    class_.def_readwrite(name, member, doc);
    attributes_.emplace_back(name);
    return *this;
  }

  py::class_<T>& finish() {
    const auto name = name_;
    const auto fields = fields_;
    class_.def(py::init([name, fields](const py::args& args, const py::kwargs& kwargs) {
      return construct(name, fields, args, kwargs);
    }));
    class_.def("__repr__", [name, fields](const py::object& self) {
      std::string text;
      for (const auto& field : fields) {
        text += fmt::format("{}{}={}", text.empty() ? "" : ", ", field,
                            py::repr(self.attr(field.c_str())).template cast<std::string>());
      }
      return fmt::format("{}({})", name, text);
    });
    class_.def("__eq__", [](const T& a, const T& b) { return a == b; }, py::is_operator());
    class_.attr("__hash__") = py::none();  // As of a dataclass that can change.
    class_.def("__copy__", [](const T& self) { return self; });
    class_.def("__deepcopy__", [](const T& self, const py::dict&) { return self; });
    auto members = fields;
    members.insert(members.end(), attributes_.begin(), attributes_.end());
    // The constructor, and state that pickle gives to setattr: of all protocols, which py::pickle
    // is not, and by name, so that a pickle outlives a change of the order.
    class_.def("__reduce__", [members](const py::object& self) {
      py::dict state;
      for (const auto& member : members) state[member.c_str()] = self.attr(member.c_str());
      return py::make_tuple(py::type::of(self), py::tuple(), py::make_tuple(py::none(), state));
    });
    class_.attr("__match_args__") = py::tuple(py::cast(fields));
    return class_;
  }

 private:
  static T construct(const std::string& name,
                     const std::vector<std::string>& fields,
                     const py::args& args,
                     const py::kwargs& kwargs) {
    if (args.size() > fields.size()) {
      throw py::type_error(fmt::format("{}() takes at most {} positional arguments, got {}", name,
                                       fields.size(), args.size()));
    }
    py::dict values = py::dict(**kwargs);
    for (size_t i = 0; i < args.size(); ++i) {
      if (values.contains(fields[i])) {
        throw py::type_error(fmt::format("{}() got '{}' twice", name, fields[i]));
      }
      values[fields[i].c_str()] = args[i];
    }
    T config;
    const auto view = py::cast(&config, py::return_value_policy::reference);
    for (const auto& [key, value] : values) {
      const auto field = key.template cast<std::string>();
      if (std::find(fields.begin(), fields.end(), field) == fields.end()) {
        throw py::type_error(fmt::format("{}() got an unexpected keyword argument '{}'; fields: {}",
                                         name, field, fmt::join(fields, ", ")));
      }
      try {
        py::setattr(view, key, value);
      } catch (const py::error_already_set&) {
        throw py::type_error(fmt::format("{}: {} cannot be {}", name, field,
                                         py::repr(value).template cast<std::string>()));
      }
    }
    return config;
  }

  py::class_<T> class_;
  std::string name_;
  std::vector<std::string> fields_;
  std::vector<std::string> attributes_;
};

void bind_siglip_config(py::module_& m) {
  using Config = SiglipVisionModelConfig;
  Dataclass<Config>(m, "SiglipVisionModelConfig",
                    "siglip_vision/config.py: SiglipVisionModelConfig.")
      .fields()
      .attribute("conv2d_patch_size", &Config::conv2d_patch_size,
                 "Not a field of the reference's dataclass, but an attribute of its class.")
      .finish();
  m.def(
      "get_siglip_vision_model_config", [] { return Config{}; },
      "siglip_vision/config.py: get_siglip_vision_model_config.");
}

void bind_gemma_config(py::module_& m) {
  Dataclass<GemmaConfig>(m, "GemmaConfig", "config.py: GemmaConfig. The defaults are those of 7b.")
      .fields()
      .finish()
      .def("get_dtype", &GemmaConfig::get_dtype,
           "The torch.dtype that `dtype` names. Raises ValueError for an unknown name.")
      .def_static(
          "from_pretrained",
          [](const py::object& path) {
            return config_from_pretrained(
                py::module_::import("os").attr("fspath")(path).cast<std::string>());
          },
          py::arg("path"), "That of a Hugging Face directory, a .ckpt or a GGUF file.")
      .def("to_hf", config_to_hf, "The text of config.json for Hugging Face transformers.");
}

void bind_paligemma_config(py::module_& m) {
  Dataclass<PaliGemmaConfig>(m, "PaliGemmaConfig", "configuration_paligemma.py: PaliGemmaConfig.")
      .fields()
      .finish()
      .def_property_readonly("image_seq_length", &PaliGemmaConfig::image_seq_length)
      .def_static("from_pretrained", paligemma_config_from_pretrained, py::arg("path"));
  m.def("get_paligemma_config", &get_paligemma_config, py::arg("variant"),
        py::arg("dtype") = "bfloat16", "Raises ValueError listing the valid names.");
  m.def("paligemma_variants", &paligemma_variants, "The names that get_paligemma_config takes.");
}

}  // namespace

void bind_config(py::module_& m) {
  py::native_enum<AttentionType>(m, "AttentionType", "enum.Enum", "config.py: AttentionType.")
      .value("GLOBAL", AttentionType::kGlobal)
      .value("LOCAL_SLIDING", AttentionType::kLocalSliding)
      .finalize();
  py::native_enum<Architecture>(m, "Architecture", "enum.Enum", "config.py: Architecture.")
      .value("GEMMA_1", Architecture::kGemma1)
      .value("GEMMA_2", Architecture::kGemma2)
      .value("GEMMA_3", Architecture::kGemma3)
      .finalize();
  bind_siglip_config(m);
  bind_gemma_config(m);
  bind_paligemma_config(m);

  const auto dtype = py::arg("dtype");  // Gemma 3's functions have no default in config.py.
  m.def("get_config_for_7b", get_config_for_7b, dtype = "bfloat16");
  m.def("get_config_for_2b", get_config_for_2b, dtype = "bfloat16");
  m.def("get_config_for_2b_v2", get_config_for_2b_v2, dtype = "bfloat16");
  m.def("get_config_for_9b", get_config_for_9b, dtype = "bfloat16");
  m.def("get_config_for_27b", get_config_for_27b, dtype = "bfloat16");
  m.def("get_config_for_270m", get_config_for_270m, dtype);
  m.def("get_config_for_1b", get_config_for_1b, dtype);
  m.def("get_config_for_4b", get_config_for_4b, dtype);
  m.def("get_config_for_12b", get_config_for_12b, dtype);
  m.def("get_config_for_27b_v3", get_config_for_27b_v3, dtype);
  m.def("get_model_config", &get_model_config, py::arg("variant"), py::arg("dtype") = "bfloat16",
        "config.py: get_model_config. Raises ValueError listing the valid names.");
  m.def("model_variants", &model_variants, "The names that get_model_config takes.");
}

}  // namespace gemma::bindings
