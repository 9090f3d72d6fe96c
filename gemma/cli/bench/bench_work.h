#pragma once

#include <gemma/cli/bench/bench_case.h>

/// What a test cannot do without, whatever the implementation.
namespace gemma::cli {

/// Bytes to be read for a generated token: every weight once for all texts that are continued
/// together, and the keys and values of the positions that it sees (averaged over the test), of
/// kv_dtype, or the state of a recurrent layer.
double bytes_per_token(const BenchCase& test, const EngineModelImpl& model, torch::Dtype kv_dtype);

/// Floating-point operations for a token: two for each weight of the layers, the attention to the
/// positions that it sees, and its logits, or of a prompt a share of those of the last token.
double flops_per_token(const BenchCase& test, const EngineModelImpl& model);

/// Numbers between the two products of an MLP.
int64_t mlp_width(const EngineModelImpl& model);

}  // namespace gemma::cli
