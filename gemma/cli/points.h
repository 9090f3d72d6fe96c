#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gemma/cli/model_options.h>
#include <gemma/models/language_model.h>

namespace gemma::cli {

/// load_model, of a Gemma.
LanguageModel load_language_model(const ModelOptions& options);

/// Throws std::invalid_argument, one line that begins with `flag`, for a point, or a pattern of
/// them, that the model does not have, or not in these numerics. Then the numerics may be others.
void check_points(EngineModel model, std::string_view flag, const std::vector<std::string>& points);

}  // namespace gemma::cli
