#pragma once

#include <string>

#include <gemma/config/config.h>
#include <gemma/config/griffin_config.h>

namespace gemma {

/// What a config says about what is computed, as EngineModelImpl::config_bytes gives it.
std::string config_bytes(const GemmaConfig& config);
std::string config_bytes(const recurrentgemma::GriffinConfig& config);

}  // namespace gemma
