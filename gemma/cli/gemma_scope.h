#pragma once

#include <string>

namespace gemma::cli {

/// The points whose value an autoencoder reads, and which it is to tell: the same, but in a
/// transcoder.
struct GemmaScopePoints {
  std::string in, out;
};

/// By the config.json beside the params of Gemma Scope 2, or, where there is none, `point`, which
/// goes first if it is not empty. Throws std::runtime_error, one line that names the file and
/// --point, when neither says it.
GemmaScopePoints gemma_scope_points(const std::string& params, const std::string& point);

}  // namespace gemma::cli
