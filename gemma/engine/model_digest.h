#pragma once

#include <cstdint>

#include <gemma/models/engine_model.h>

namespace gemma {

/// A number that another config or other weights would not have, so that keys and values are not
/// taken for those of another model. Looks at 16 KB of each tensor at most. It is no defence
/// against somebody who wants to be mistaken.
uint32_t model_digest(const EngineModelImpl& model);

}  // namespace gemma
