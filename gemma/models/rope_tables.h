#pragma once

#include <cstdint>
#include <map>

#include <ATen/core/Tensor.h>

#include <gemma/config/config.h>

namespace gemma {

/// Rotary tables, complex64 [L, D / 2], for each type of attention.
using FreqsCis = std::map<AttentionType, at::Tensor>;

/// Those of the layers of `config` for positions 0 to `positions` - 1. Gemma 1 and 2 have one table
/// for both types.
FreqsCis make_rope_tables(const GemmaConfig& config, int64_t positions);

/// Their rows at these positions, int64 [L].
FreqsCis rows_at(const FreqsCis& tables, const at::Tensor& positions);

}  // namespace gemma
