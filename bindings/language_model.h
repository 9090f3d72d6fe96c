#pragma once

#include <cstdint>
#include <vector>

#include "bindings.h"

#include <gemma/generate/options.h>
#include <gemma/models/language_model.h>

namespace gemma::bindings {

// generate()'s options from its keyword arguments; `on_token` has to outlive them.
GenerateOptions generate_options(const py::object& on_token,
                                 const std::vector<int64_t>& stop_ids,
                                 const py::object& kv_dtype);

}  // namespace gemma::bindings
