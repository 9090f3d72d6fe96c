#pragma once

#include <cstdint>

namespace gemma::cli {

/// Lets peak_memory count from here; where the system does not allow it, it goes on counting from
/// the start of the program.
void reset_peak_memory();

/// The most memory that the program held at a time, in bytes, pages of mapped files included.
int64_t peak_memory();

}  // namespace gemma::cli
