#pragma once

namespace gemma::cli {

/// The text of bench_reference.py.
const char* bench_reference_script();

}  // namespace gemma::cli
