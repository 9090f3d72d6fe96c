#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/config/griffin_config.h>

// `gemma info` of a RecurrentGemma.
namespace gemma::cli {

/// Prints the config, the modules with their sizes in this dtype, and the size of a text's state.
/// Throws std::invalid_argument for an unknown dtype.
void print_griffin(const recurrentgemma::GriffinConfig& config, const std::string& dtype_name);

/// The preset of that name; none when there is none.
std::optional<recurrentgemma::Preset> griffin_preset(const std::string& name);

/// The names that griffin_preset takes.
std::vector<std::string_view> griffin_presets();

}  // namespace gemma::cli
