#pragma once

#include <stdexcept>

namespace gemma {

/// A path that leads nowhere; Python sees FileNotFoundError.
struct FileNotFound : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace gemma
