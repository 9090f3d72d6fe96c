#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/container/modulelist.h>

#include "bindings.h"

#include <gemma/config/dtype_name.h>
#include <gemma/weights/weights.h>

// What a Python user expects of a torch.nn.Module, for the C++ modules.
namespace gemma::bindings {
namespace {

using NNModule = torch::nn::Module;
using ModulePtr = std::shared_ptr<NNModule>;

using TensorDict = torch::OrderedDict<std::string, at::Tensor>;

// Undefined when there is none of that name.
at::Tensor find(const TensorDict& tensors, const std::string& name) {
  const auto* found = tensors.find(name);
  return found == nullptr ? at::Tensor() : *found;
}

// A parameter or buffer of the module itself.
at::Tensor own_tensor(const NNModule& self, const std::string& name) {
  auto parameter = find(self.named_parameters(/*recurse=*/false), name);
  return parameter.defined() ? parameter : find(self.named_buffers(/*recurse=*/false), name);
}

ModulePtr child(const NNModule& self, const std::string& name) {
  for (const auto& item : self.named_children()) {
    if (item.key() == name) return item.value();
  }
  return nullptr;
}

[[noreturn]] void no_attribute(const py::object& self, const std::string& name) {
  throw py::attribute_error(fmt::format("'{}' object has no attribute '{}'",
                                        py::type::of(self).attr("__name__").cast<std::string>(),
                                        name));
}

py::object getattr(const py::object& self, const std::string& name) {
  const auto& module = self.cast<const NNModule&>();
  if (auto tensor = own_tensor(module, name); tensor.defined()) return py::cast(tensor);
  if (auto found = child(module, name)) return py::cast(found);
  no_attribute(self, name);
}

// A parameter is given the data of another tensor; the tensor that modules compute with and the one
// Python has seen stay one and the same.
void setattr(const py::object& self, const std::string& name, const py::object& value) {
  auto tensor = own_tensor(self.cast<const NNModule&>(), name);
  if (!tensor.defined()) no_attribute(self, name);
  const auto data = value.cast<at::Tensor>().detach();
  if (data.sizes() != tensor.sizes()) {
    throw py::value_error(fmt::format("'{}' is [{}], but a tensor of [{}] was given", name,
                                      fmt::join(tensor.sizes().vec(), ", "),
                                      fmt::join(data.sizes().vec(), ", ")));
  }
  const auto* const ours = dynamic_cast<const Module*>(&self.cast<const NNModule&>());
  const torch::NoGradGuard no_grad;
  const py::gil_scoped_release release;
  std::optional<UseLock::Change> change;
  if (ours != nullptr) change.emplace(ours->use_lock(), name.c_str());
  tensor.set_data(data);
}

// "layers.0.self_attn"; "" is the module itself.
ModulePtr get_submodule(const NNModule& root, const std::string& target) {
  auto module = std::const_pointer_cast<NNModule>(root.shared_from_this());
  for (size_t begin = 0; begin < target.size();) {
    const auto end = std::min(target.find('.', begin), target.size());
    const auto name = target.substr(begin, end - begin);
    module = child(*module, name);
    if (!module) {
      throw py::attribute_error(fmt::format("no submodule '{}' on the way to '{}'", name, target));
    }
    begin = end + 1;
  }
  return module;
}

// The parent of "layers.0.weight" is "layers.0", and its own name "weight".
std::pair<ModulePtr, std::string> parent_and_name(const NNModule& root, const std::string& target) {
  const auto dot = target.rfind('.');
  if (dot == std::string::npos) return {get_submodule(root, ""), target};
  return {get_submodule(root, target.substr(0, dot)), target.substr(dot + 1)};
}

at::Tensor get_parameter(const NNModule& root, const std::string& target) {
  const auto [parent, name] = parent_and_name(root, target);
  auto parameter = find(parent->named_parameters(/*recurse=*/false), name);
  if (!parameter.defined()) throw py::attribute_error(fmt::format("no parameter '{}'", target));
  return parameter;
}

at::Tensor get_buffer(const NNModule& root, const std::string& target) {
  const auto [parent, name] = parent_and_name(root, target);
  auto buffer = find(parent->named_buffers(/*recurse=*/false), name);
  if (!buffer.defined()) throw py::attribute_error(fmt::format("no buffer '{}'", target));
  return buffer;
}

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : name.empty() ? prefix : prefix + "." + name;
}

template <typename Items>
py::iterator named(const Items& items, const std::string& prefix) {
  py::list out;
  for (const auto& item : items)
    out.append(py::make_tuple(joined(prefix, item.key()), item.value()));
  return py::iter(out);
}

template <typename Values>
py::iterator iterate(const Values& values) {
  return py::iter(py::cast(values));
}

py::object state_dict_of(const NNModule& self, const std::string& prefix, bool keep_vars) {
  auto out = py::module_::import("collections").attr("OrderedDict")();
  for (const auto& [name, tensor] : state_dict(self)) {
    out[py::str(prefix + name)] = keep_vars ? tensor : tensor.detach();
  }
  return out;
}

py::object load_state_dict_into(NNModule& self, const py::object& given, bool strict, bool assign) {
  StateDict tensors;
  for (const auto& item : given.attr("items")()) {
    tensors.push_back(item.cast<std::pair<std::string, at::Tensor>>());
  }
  LoadReport report;
  {
    const py::gil_scoped_release release;
    report = load_state_dict(self, tensors, strict, assign);
  }
  const auto keys = py::module_::import("torch.nn.modules.module").attr("_IncompatibleKeys");
  return keys(report.missing, report.unexpected);
}

// module.to(device), .to(dtype), .to(device, dtype), .to(tensor): parsed as torch does.
py::object to(const py::object& self, const py::args& args, const py::kwargs& kwargs) {
  const auto parse = py::module_::import("torch").attr("_C").attr("_nn").attr("_parse_to");
  const py::tuple parsed = parse(*args, **kwargs);
  const auto device = parsed[0].cast<std::optional<torch::Device>>();
  const auto non_blocking = parsed[2].cast<bool>();
  auto& module = self.cast<NNModule&>();
  if (!parsed[1].is_none()) {
    const auto dtype = parsed[1].cast<at::ScalarType>();
    if (!c10::isFloatingType(dtype)) {
      throw py::type_error(fmt::format("to: weights cannot be cast to {}; give a floating dtype",
                                       gemma::dtype_name(dtype)));
    }
    const py::gil_scoped_release release;
    module.to(dtype, non_blocking);
  }
  if (device) {
    const py::gil_scoped_release release;
    module.to(*device, non_blocking);
  }
  return self;
}

py::object to_dtype(const py::object& self, const char* name) {
  return self.attr("to")(py::module_::import("torch").attr(name));
}

py::object apply(const py::object& self, const py::function& fn) {
  for (const auto& item : self.attr("children")()) item.attr("apply")(fn);
  fn(self);
  return self;
}

void bind_base(py::module_& m) {
  py::class_<NNModule, ModulePtr> c(m, "_NNModule", py::module_local());
  c.def("__call__", [](const py::object& self, const py::args& args, const py::kwargs& kwargs) {
    return self.attr("forward")(*args, **kwargs);
  });
  c.def("__repr__", [](const NNModule& self) { return to_string(self); });
  c.def("__getattr__", getattr);
  c.def("__setattr__", setattr);
  c.def("__dir__", [](const py::object& self) {
    py::list names = py::module_::import("builtins").attr("object").attr("__dir__")(self);
    const auto& module = self.cast<const NNModule&>();
    for (const auto& item : module.named_parameters(false)) names.append(item.key());
    for (const auto& item : module.named_buffers(false)) names.append(item.key());
    for (const auto& item : module.named_children()) names.append(item.key());
    return names;
  });

  c.def_property_readonly("training", &NNModule::is_training);
  c.def(
      "train",
      [](const py::object& self, bool mode) {
        self.cast<NNModule&>().train(mode);
        return self;
      },
      py::arg("mode") = true);
  c.def("eval", [](const py::object& self) {
    self.cast<NNModule&>().eval();
    return self;
  });
  c.def("apply", apply, py::arg("fn"));
  c.def(
      "requires_grad_",
      [](const py::object& self, bool requires_grad) {
        for (auto& parameter : self.cast<NNModule&>().parameters()) {
          parameter.set_requires_grad(requires_grad);
        }
        return self;
      },
      py::arg("requires_grad") = true,
      "Whether parameters take gradients; exact numerics give them.");
  c.def("zero_grad", &NNModule::zero_grad, py::arg("set_to_none") = true);

  c.def("to", to, "Moves to a device; a dtype casts floating weights, never int8 or rope tables.");
  c.def("cpu", [](const py::object& self) { return self.attr("to")("cpu"); });
  c.def(
      "cuda",
      [](const py::object& self, const py::object& device) {
        return self.attr("to")(device.is_none() ? py::str("cuda") : device);
      },
      py::arg("device") = py::none());
  c.def("float", [](const py::object& self) { return to_dtype(self, "float32"); });
  c.def("half", [](const py::object& self) { return to_dtype(self, "float16"); });
  c.def("bfloat16", [](const py::object& self) { return to_dtype(self, "bfloat16"); });

  c.def("state_dict", state_dict_of, py::kw_only(), py::arg("prefix") = "",
        py::arg("keep_vars") = false,
        "Every parameter and buffer; the tensors are the module's own.");
  c.def("load_state_dict", load_state_dict_into, py::arg("state_dict"), py::arg("strict") = true,
        py::arg("assign") = false,
        "Copies tensors into the parameters; rope tables are passed over. Raises RuntimeError, "
        "before changing anything, when they do not fit.");

  c.def(
      "named_parameters",
      [](const NNModule& self, const std::string& prefix, bool recurse) {
        return named(self.named_parameters(recurse), prefix);
      },
      py::arg("prefix") = "", py::arg("recurse") = true);
  c.def(
      "parameters",
      [](const NNModule& self, bool recurse) { return iterate(self.parameters(recurse)); },
      py::arg("recurse") = true);
  c.def(
      "named_buffers",
      [](const NNModule& self, const std::string& prefix, bool recurse) {
        return named(self.named_buffers(recurse), prefix);
      },
      py::arg("prefix") = "", py::arg("recurse") = true);
  c.def(
      "buffers", [](const NNModule& self, bool recurse) { return iterate(self.buffers(recurse)); },
      py::arg("recurse") = true);
  c.def(
      "named_modules",
      [](const NNModule& self, const std::string& prefix) {
        return named(self.named_modules(), prefix);
      },
      py::arg("prefix") = "");
  c.def("modules", [](const NNModule& self) { return iterate(self.modules()); });
  c.def("named_children", [](const NNModule& self) { return named(self.named_children(), ""); });
  c.def("children", [](const NNModule& self) { return iterate(self.children()); });
  c.def("get_submodule", get_submodule, py::arg("target"));
  c.def("get_parameter", get_parameter, py::arg("target"));
  c.def("get_buffer", get_buffer, py::arg("target"));
}

void bind_module_list(py::module_& m) {
  using List = torch::nn::ModuleListImpl;
  py::class_<List, NNModule, std::shared_ptr<List>>(m, "ModuleList", py::module_local())
      .def("__len__", &List::size)
      .def("__iter__", [](const List& self) { return iterate(self.children()); })
      .def("__getitem__",
           [](const List& self, int64_t index) {
             const auto size = static_cast<int64_t>(self.size());
             if (index < -size || index >= size) {
               throw py::index_error(
                   fmt::format("index {} is out of range of {} modules", index, size));
             }
             return self.ptr(static_cast<size_t>(index < 0 ? index + size : index));
           })
      .def("__getitem__", [](const List& self, const py::slice& slice) {
        return py::object(py::list(py::cast(self.children()))[slice]);
      });
}

}  // namespace

void bind_nn_module(py::module_& m) {
  bind_base(m);
  bind_module_list(m);
  py::class_<Module, NNModule, std::shared_ptr<Module>>(
      m, "Module", "Base of every module: what torch.nn.Module offers, and the choice of numerics.")
      .def(
          "set_numerics",
          [](Module& self, const std::string& name) {
            self.set_numerics(numerics_from_string(name));
          },
          py::arg("numerics"), ReleaseGil(), "'exact': the reference's results, bit for bit.")
      .def_property_readonly(
          "numerics", [](const Module& self) { return std::string(to_string(self.numerics())); });
}

}  // namespace gemma::bindings
