#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "bindings.h"

#include <gemma/config/fields.h>
#include <gemma/generate/griffin_sampler.h>
#include <gemma/modules/recurrentgemma/cache.h>

namespace gemma::bindings {

namespace rg = recurrentgemma;

// The part of the extension that has the names of recurrentgemma.torch, some of which are also
// names of gemma_pytorch.
void bind_griffin(py::module_& part);
void bind_griffin_config(py::module_& part);
void bind_griffin_layers(py::module_& part);

// A module whose weights have `dtype`, or else torch's default one, on `device` if one is given.
template <typename Impl, typename... Args>
std::shared_ptr<Impl> constructed(const py::object& device,
                                  std::optional<torch::Dtype> dtype,
                                  const Args&... args) {
  const DefaultDtypeGuard guard(dtype.value_or(default_dtype()));
  auto module = std::make_shared<Impl>(args...);
  if (!device.is_none()) module->to(to_device(device));
  return module;
}

inline torch::Device device_or_cpu(const py::object& device) {
  return device.is_none() ? torch::Device(torch::kCPU) : to_device(device);
}

// Structs that are a NamedTuple in Python: its name, and its fields in order.
template <typename T>
struct NamedTuple;

template <>
struct NamedTuple<rg::RecurrentBlockCache> {
  using T = rg::RecurrentBlockCache;
  static constexpr auto kName = py::detail::const_name("RecurrentBlockCache");
  static constexpr std::tuple kFields{Field{"rg_lru_state", &T::rg_lru_state},
                                      Field{"conv1d_state", &T::conv1d_state}};
};

template <>
struct NamedTuple<rg::AttentionBlockCache> {
  using T = rg::AttentionBlockCache;
  static constexpr auto kName = py::detail::const_name("AttentionBlockCache");
  static constexpr std::tuple kFields{Field{"keys", &T::keys}, Field{"values", &T::values},
                                      Field{"num_tokens", &T::num_tokens}};
};

template <>
struct NamedTuple<rg::GriffinConfig> {
  static constexpr auto kName = py::detail::const_name("GriffinConfig");
  static constexpr auto kFields = detail::fields_of(static_cast<const rg::GriffinConfig*>(nullptr));
};

template <>
struct NamedTuple<rg::SamplerOutput> {
  using T = rg::SamplerOutput;
  static constexpr auto kName = py::detail::const_name("SamplerOutput");
  static constexpr std::tuple kFields{Field{"text", &T::text}, Field{"logits", &T::logits},
                                      Field{"tokens", &T::tokens}};
};

// visit(field) for each, in order.
template <typename T, typename Visit>
void visit_named_tuple(const Visit& visit) {
  std::apply([&](const auto&... field) { (visit(field), ...); }, NamedTuple<T>::kFields);
}

// Makes the class in Python, with defaults for the last fields.
template <typename T>
py::object make_named_tuple(py::module_& part,
                            const char* doc,
                            const py::tuple& defaults = py::tuple()) {
  py::list names;
  visit_named_tuple<T>([&](const auto& field) { names.append(std::string(field.name)); });
  auto type =
      py::module_::import("collections")
          .attr("namedtuple")(NamedTuple<T>::kName.text, names, py::arg("defaults") = defaults,
                              py::arg("module") = "gemma_libtorch.recurrentgemma");
  type.attr("__doc__") = doc;
  part.attr(NamedTuple<T>::kName.text) = type;
  return type;
}

// Takes any tuple with as many fields, so those of the reference too. Hidden, as what it is made
// of.
template <typename T>
struct [[gnu::visibility("hidden")]] NamedTupleCaster {
  PYBIND11_TYPE_CASTER(T, NamedTuple<T>::kName);

  bool load(py::handle src, bool /*convert*/) {
    if (!PyTuple_Check(src.ptr())) return false;
    const auto fields = py::reinterpret_borrow<py::tuple>(src);
    if (fields.size() != std::tuple_size_v<decltype(NamedTuple<T>::kFields)>) return false;
    size_t i = 0;
    try {
      visit_named_tuple<T>([&](const auto& field) {
        using Value = std::remove_cvref_t<decltype(value.*field.member)>;
        value.*field.member = fields[i++].template cast<Value>();
      });
    } catch (const py::cast_error&) {
      return false;
    }
    return true;
  }

  static py::handle cast(const T& from, py::return_value_policy, py::handle) {
    py::list values;
    visit_named_tuple<T>([&](const auto& field) {
      values.append(from.*field.member);
      // The reference's, so that a config has a hash.
      if (field.name == "block_types")
        values[values.size() - 1] = py::tuple(values[values.size() - 1]);
    });
    const auto type = py::module_::import("gemma_libtorch._C")
                          .attr("_recurrentgemma")
                          .attr(NamedTuple<T>::kName.text);
    return type(*values).release();
  }
};

}  // namespace gemma::bindings

namespace pybind11::detail {

template <>
struct type_caster<gemma::recurrentgemma::RecurrentBlockCache>
    : gemma::bindings::NamedTupleCaster<gemma::recurrentgemma::RecurrentBlockCache> {};
template <>
struct type_caster<gemma::recurrentgemma::AttentionBlockCache>
    : gemma::bindings::NamedTupleCaster<gemma::recurrentgemma::AttentionBlockCache> {};
template <>
struct type_caster<gemma::recurrentgemma::GriffinConfig>
    : gemma::bindings::NamedTupleCaster<gemma::recurrentgemma::GriffinConfig> {};
template <>
struct type_caster<gemma::recurrentgemma::SamplerOutput>
    : gemma::bindings::NamedTupleCaster<gemma::recurrentgemma::SamplerOutput> {};

}  // namespace pybind11::detail
