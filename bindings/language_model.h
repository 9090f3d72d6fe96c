#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bindings.h"

#include <gemma/generate/options.h>
#include <gemma/models/language_model.h>

namespace gemma::bindings {

// generate()'s options from its keyword arguments; `on_token` has to outlive them.
GenerateOptions generate_options(const py::object& on_token,
                                 const std::vector<int64_t>& stop_ids,
                                 const py::object& kv_dtype);

// Lets Ctrl-C, or any other signal whose Python handler raises, end a computation of many layers.
LayerCallback signal_check();

// What `load` does with `options` and the call of `progress`; warns of tensors without a place.
LoadReport loaded(const std::filesystem::path& model_path,
                  const py::object& progress,
                  LoadOptions options,
                  const std::function<LoadReport(const std::string&, const LoadOptions&)>& load);

// A model's load_weights.
template <typename Model>
LoadReport load_weights(Model& self,
                        const std::filesystem::path& model_path,
                        const py::object& progress,
                        bool mmap) {
  return loaded(model_path, progress, {.mmap = mmap},
                [&](const std::string& path, const LoadOptions& options) {
                  return self.load_weights(path, options);
                });
}

}  // namespace gemma::bindings
