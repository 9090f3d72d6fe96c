#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "bindings.h"
#include "language_model.h"

#include <gemma/models/language_model.h>
#include <gemma/modules/taps.h>

namespace gemma::bindings {
namespace {

// A TapSite that Python may keep.
struct Site {
  explicit Site(const TapSite& site)
      : name(site.name),
        texts(site.texts.begin(), site.texts.end()),
        positions(site.positions.begin(), site.positions.end()) {}

  std::string name;
  std::vector<int64_t> texts, positions;
};

using Replacement = std::optional<at::Tensor>;
// pybind11 takes the GIL for such a call.
using SiteFunction = std::function<Replacement(const at::Tensor& value, const Site& site)>;

TapFunction to_tap(SiteFunction function) {
  return [function = std::move(function)](const at::Tensor& value, const TapSite& site) {
    return function(value, Site(site));
  };
}

// What removes taps again. It keeps the module.
struct Handle {
  std::shared_ptr<Module> module;
  TapHandle taps;
};

std::shared_ptr<Module> shared(Module& module) {
  return std::dynamic_pointer_cast<Module>(module.shared_from_this());
}

Handle add_taps(Module& self, const std::vector<std::pair<std::string, SiteFunction>>& given) {
  std::vector<Tap> taps;
  for (const auto& [points, function] : given) taps.push_back({points, to_tap(function)});
  return {shared(self), self.add_taps(taps)};
}

// The inputs of calls whose outputs are still to come.
class Inputs {
 public:
  void put(const TapSite& site, const at::Tensor& input) {
    const std::lock_guard hold(mutex_);
    inputs_[key_of(site)] = input;
  }
  at::Tensor take(const TapSite& site) {
    const std::lock_guard hold(mutex_);
    return std::move(inputs_.extract(key_of(site)).mapped());
  }

 private:
  // Of rows that the same thread computes.
  using Key = std::tuple<std::thread::id, std::vector<int64_t>, std::vector<int64_t>>;

  static Key key_of(const TapSite& site) {
    return {std::this_thread::get_id(),
            {site.texts.begin(), site.texts.end()},
            {site.positions.begin(), site.positions.end()}};
  }

  std::mutex mutex_;
  std::map<Key, at::Tensor> inputs_;
};

using Owner = std::shared_ptr<Module>;
using Args = std::tuple<at::Tensor>;
using ForwardHook =
    std::function<Replacement(const Owner& module, const Args& args, const at::Tensor& output)>;
using ForwardPreHook =
    std::function<std::variant<Replacement, Args>(const Owner& module, const Args& args)>;

Handle with_taps(Module& self, const std::vector<Tap>& taps) {
  return {shared(self), self.add_taps(taps)};
}

// The functions of these taps are the module's own: they find it by its address.
Handle register_forward_hook(Module& self, const ForwardHook& hook) {
  const auto inputs = std::make_shared<Inputs>();
  const Tap before{"hook_in", [inputs](const at::Tensor& value, const TapSite& site) {
                     inputs->put(site, value);
                     return std::nullopt;
                   }};
  const Tap after{"hook_out", [inputs, hook, &self](const at::Tensor& value, const TapSite& site) {
                    return hook(shared(self), {inputs->take(site)}, value);
                  }};
  return with_taps(self, {before, after});
}

Handle register_forward_pre_hook(Module& self, const ForwardPreHook& hook) {
  const auto before = [hook, &self](const at::Tensor& value, const TapSite&) -> Replacement {
    const auto given = hook(shared(self), {value});
    if (const auto* args = std::get_if<Args>(&given)) return std::get<0>(*args);
    return std::get<Replacement>(given);
  };
  return with_taps(self, {{"hook_in", before}});
}

using Values = std::map<std::string, at::Tensor>;

std::pair<at::Tensor, Values> run(LanguageModelImpl& self,
                                  const at::Tensor& input,
                                  const std::vector<std::string>& keep,
                                  int64_t start_at_layer,
                                  std::optional<int64_t> stop_at_layer) {
  Values kept;
  std::vector<Tap> taps;
  const auto me = std::this_thread::get_id();
  for (const auto& point : keep) {
    taps.push_back({point, [&kept, me](const at::Tensor& value, const TapSite& site) {
                      // Another thread may compute with the model at the same time.
                      if (std::this_thread::get_id() == me) kept[std::string(site.name)] = value;
                      return std::nullopt;
                    }});
  }
  const py::gil_scoped_release release;
  const auto compute = [&] {
    return self.run(input, {start_at_layer, stop_at_layer}, signal_check());
  };
  if (taps.empty()) return {compute(), kept};
  const auto handle = self.add_taps(taps);
  try {
    auto result = compute();
    self.remove_taps(handle);
    return {std::move(result), kept};
  } catch (...) {
    self.remove_taps(handle);
    throw;
  }
}

}  // namespace

void bind_taps(py::module_& m) {
  py::class_<Site>(m, "TapSite", "Where a value is from.")
      .def_readonly("name", &Site::name)
      .def_readonly("texts", &Site::texts)
      .def_readonly("positions", &Site::positions);
  py::class_<Handle>(m, "TapHandle",
                     "Taps of a module; also a context, at whose end they are gone.")
      .def(
          "remove", [](const Handle& self) { self.module->remove_taps(self.taps); }, ReleaseGil())
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](const Handle& self, const py::args&) {
        const py::gil_scoped_release release;
        self.module->remove_taps(self.taps);
      });

  using Base = py::class_<Module, torch::nn::Module, std::shared_ptr<Module>>;
  py::reinterpret_borrow<Base>(m.attr("Module"))
      .def("add_taps", add_taps, py::arg("taps"), ReleaseGil(),
           "Calls function(value, site) for points below, by name or pattern: [(name, function)].")
      .def("tap_names", &Module::tap_names, "The names of each point at and below this module.")
      .def("register_forward_hook", register_forward_hook, py::arg("hook"), ReleaseGil(),
           "hook(module, args, output) -> None, or another output")
      .def("register_forward_pre_hook", register_forward_pre_hook, py::arg("hook"), ReleaseGil(),
           "hook(module, args) -> None, or another input");
  py::reinterpret_borrow<ModuleClass<LanguageModelImpl>>(m.attr("LanguageModel"))
      .def(
          "logits", [](LanguageModelImpl& self, const at::Tensor& ids) { return self.run(ids); },
          py::arg("token_ids"), ReleaseGil(),
          "token ids [B, L] -> the logits of all positions [B, L, V], with a graph for gradients")
      .def("run", run, py::arg("input"), py::kw_only(),
           py::arg("keep") = std::vector<std::string>(), py::arg("start_at_layer") = 0,
           py::arg("stop_at_layer") = py::none(),
           "token ids [B, L] -> (logits [B, L, V], the values of the points to keep by name)");
}

}  // namespace gemma::bindings
