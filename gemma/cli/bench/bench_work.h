#pragma once

#include <gemma/cli/bench/bench_case.h>

/// What a test cannot do without, whatever the implementation.
namespace gemma::cli {

/// Bytes to be read for a generated token: every weight once for all texts that are continued
/// together, and the keys and values of the positions that it sees (averaged over the test), of
/// kv_dtype.
double bytes_per_token(const BenchCase& test,
                       const LanguageModelImpl& model,
                       torch::Dtype kv_dtype);

/// Floating-point operations for a token: two for each weight of the layers, the attention to the
/// positions that it sees, and its logits, or of a prompt a share of those of the last token.
double flops_per_token(const BenchCase& test, const GemmaConfig& config);

}  // namespace gemma::cli
