#pragma once

#include <optional>
#include <string>
#include <utility>

#include <pybind11/functional.h>
#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/nn/module.h>

#include <gemma/modules/module.h>
#include <gemma/ops/attention_types.h>

namespace py = pybind11;

namespace gemma::bindings {

// One function a file; each adds its classes and functions to the extension.
void bind_config(py::module_& m);
void bind_tokenizer(py::module_& m);
void bind_image(py::module_& m);
void bind_pan_and_scan(py::module_& m);
void bind_preprocessor(py::module_& m);
void bind_gemma3_preprocessor(py::module_& m);
void bind_nn_module(py::module_& m);
void bind_rotary(py::module_& m);
void bind_rotary_embedding(py::module_& m);
void bind_linear(py::module_& m);
void bind_embedding(py::module_& m);
void bind_rms_norm(py::module_& m);
void bind_mlp(py::module_& m);
void bind_attention(py::module_& m);
void bind_decoder_layer(py::module_& m);
void bind_gemma_model(py::module_& m);
void bind_sampler(py::module_& m);
void bind_language_model(py::module_& m);
void bind_taps(py::module_& m);
void bind_causal_lm(py::module_& m);
void bind_multimodal_lm(py::module_& m);
void bind_paligemma(py::module_& m);
void bind_summary(py::module_& m);
void bind_siglip_vision_model(py::module_& m);
void bind_embedding_gemma(py::module_& m);
void bind_engine(py::module_& m);
void bind_recurrentgemma(py::module_& m);
void bind_chat_prompt(py::module_& m);
void bind_fim_prompt(py::module_& m);

// A module's class; what all modules share comes from its base (nn_module.cc).
template <typename Impl, typename Base = Module>
using ModuleClass = py::class_<Impl, Base, std::shared_ptr<Impl>>;

// Long calls let other Python threads run.
using ReleaseGil = py::call_guard<py::gil_scoped_release>;

// A torch.device, its name, or the number of a GPU, as torch.device() takes them.
// Raises what torch.device() raises.
inline torch::Device to_device(const py::object& device) {
  return py::module_::import("torch").attr("device")(device).cast<torch::Device>();
}

// The UTF-8 of a str. Raises TypeError for another object, and for a str that UTF-8 cannot hold
// (lone surrogates), as sentencepiece does.
std::string to_text(py::handle text);

// Those of a str, or of several in a list or another iterable.
struct Texts {
  std::vector<std::string> all;
  bool is_one;
};
Texts to_texts(const py::object& given);

// What an optional submodule is in Python: the module, or None.
template <typename Holder>
auto module_or_none(const Holder& holder) {
  return holder.is_empty() ? nullptr : holder.ptr();
}

}  // namespace gemma::bindings

namespace pybind11::detail {

// A layer's cache is a tuple (k, v) in Python.
template <>
struct type_caster<gemma::KVCache> {
  PYBIND11_TYPE_CASTER(gemma::KVCache, const_name("tuple[torch.Tensor, torch.Tensor]"));

  bool load(handle src, bool convert) {
    make_caster<std::pair<at::Tensor, at::Tensor>> pair;
    if (!pair.load(src, convert)) return false;
    auto [k, v] = cast_op<std::pair<at::Tensor, at::Tensor>>(pair);
    value = {std::move(k), std::move(v)};
    return true;
  }

  static handle cast(const gemma::KVCache& cache, return_value_policy, handle) {
    return pybind11::make_tuple(cache.k, cache.v).release();
  }
};

}  // namespace pybind11::detail
