#pragma once

#include <gemma/cli/bench/bench_case.h>

/// What a test cannot do without, whatever the implementation.
namespace gemma::cli {

/// Bytes to be read for a generated token: every weight once, and the keys and values of the
/// positions that it sees (averaged over the test), of kv_dtype.
double bytes_per_token(const BenchCase& test,
                       const LanguageModelImpl& model,
                       torch::Dtype kv_dtype);

/// Floating-point operations of a prompt: two for each weight of the layers and each token, the
/// attention to the positions that tokens see, and the logits of the last token.
double prefill_flops(const BenchCase& test, const GemmaConfig& config);

}  // namespace gemma::cli
