#include <map>
#include <memory>

#include <fmt/format.h>

#include "language_model.h"
#include "recurrentgemma.h"

#include <gemma/models/griffin.h>
#include <gemma/weights/hf/hf_griffin.h>

namespace gemma::bindings {
namespace {

using CacheByName = std::map<std::string, rg::ResidualBlockCache>;

std::string block_name(size_t i) { return fmt::format("blocks.{}", i); }

rg::Cache in_order(const CacheByName& cache, int64_t num_layers) {
  rg::Cache blocks;
  for (size_t i = 0; i < static_cast<size_t>(num_layers); ++i) {
    const auto block = cache.find(block_name(i));
    if (block == cache.end()) {
      throw py::value_error(fmt::format("Griffin: the cache has no '{}'", block_name(i)));
    }
    blocks.push_back(block->second);
  }
  return blocks;
}

py::dict by_name(const rg::Cache& cache) {
  py::dict blocks;
  for (size_t i = 0; i < cache.size(); ++i) blocks[py::str(block_name(i))] = py::cast(cache[i]);
  return blocks;
}

std::pair<std::optional<at::Tensor>, std::optional<py::dict>> forward(
    rg::GriffinImpl& self,
    const at::Tensor& tokens,
    const at::Tensor& segment_pos,
    const std::optional<CacheByName>& cache,
    bool return_logits,
    bool return_cache) {
  const auto blocks =
      cache ? std::optional(in_order(*cache, self.config().num_layers())) : std::nullopt;
  const auto [logits, next] = [&] {
    const py::gil_scoped_release release;
    return self.forward(tokens, segment_pos, blocks, return_logits, return_cache, signal_check());
  }();
  return {logits, next ? std::optional(by_name(*next)) : std::nullopt};
}

rg::SamplerOutput sample(rg::Sampler& self,
                         const py::iterable& input_strings,
                         int64_t total_generation_steps,
                         bool echo,
                         bool return_logits,
                         bool end_sampling_at_eos_token) {
  std::vector<std::string> texts;
  for (const auto text : input_strings) texts.push_back(to_text(text));
  const py::gil_scoped_release release;
  return self(texts, total_generation_steps,
              {.echo = echo,
               .return_logits = return_logits,
               .end_sampling_at_eos_token = end_sampling_at_eos_token,
               .on_block = signal_check()});
}

void bind_network(py::module_& part) {
  ModuleClass<rg::GriffinImpl, EngineModelImpl>(part, "Griffin", "griffin.py: Griffin.")
      // Gradient checkpointing saves memory where there are gradients.
      .def(py::init([](const rg::GriffinConfig& config, bool /*gradient_checkpointing*/,
                       const py::object& device, std::optional<torch::Dtype> dtype) {
             return constructed<rg::GriffinImpl>(device, dtype, config);
           }),
           py::arg("config"), py::arg("gradient_checkpointing") = true,
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("forward", forward, py::arg("tokens"), py::arg("segment_pos"),
           py::arg("cache") = py::none(), py::arg("return_logits") = true,
           py::arg("return_cache") = true,
           "tokens and segment_pos [B, T] -> (logits [B, T, V], the next cache)")
      .def(
          "init_cache",
          [](const rg::GriffinImpl& self, int64_t batch_size, torch::Dtype dtype) {
            return by_name(self.init_cache(batch_size, dtype));
          },
          py::arg("batch_size"), py::arg("dtype"))
      .def("load_weights", load_weights<rg::GriffinImpl>, py::arg("model_path"),
           py::arg("progress") = py::none(), py::kw_only(), py::arg("mmap") = false,
           "Loads a checkpoint; progress(LoadProgress) after each tensor.")
      .def(
          "to_transformers_state_dict",
          [](const rg::GriffinImpl& self) {
            py::dict state;
            for (const auto& [name, tensor] : griffin_to_hf(weights_of(self))) {
              state[py::str(name)] = tensor;
            }
            return state;
          },
          "The weights under the names of transformers.")
      .def_property_readonly("config", &rg::GriffinImpl::config);
}

void bind_sampler_class(py::module_& part) {
  using Class = rg::Sampler;
  py::class_<Class>(part, "Sampler", "sampler.py: Sampler.")
      .def(py::init([](const std::shared_ptr<rg::GriffinImpl>& model, const Tokenizer& vocab,
                       bool greedy_sampling, bool is_it_model) {
             return std::make_unique<Class>(rg::Griffin(model), vocab, greedy_sampling,
                                            is_it_model);
           }),
           py::arg("model"), py::arg("vocab"), py::arg("greedy_sampling") = true,
           py::arg("is_it_model") = false, py::keep_alive<1, 3>())
      .def("__call__", sample, py::arg("input_strings"), py::arg("total_generation_steps"),
           py::arg("echo") = false, py::arg("return_logits") = false,
           py::arg("end_sampling_at_eos_token") = true)
      .def(
          "tokenize",
          [](const Class& self, const py::object& input_string) {
            return self.tokenize(to_text(input_string));
          },
          py::arg("input_string"))
      .def_property_readonly("model", [](const Class& self) { return self.model().ptr(); })
      .def_property_readonly("greedy_sampling", &Class::greedy_sampling)
      .def_property_readonly("dtype", &Class::dtype)
      .def_property_readonly("device", &Class::device)
      .def_property_readonly("vocab_size", &Class::vocab_size);
}

}  // namespace

void bind_griffin(py::module_& part) {
  make_named_tuple<rg::SamplerOutput>(part, "sampler.py: SamplerOutput.");
  bind_network(part);
  bind_sampler_class(part);
}

}  // namespace gemma::bindings
