#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace gemma {

/// Per-row sampling parameters, as Sampler.forward takes them.
struct SamplingParams {
  std::optional<at::Tensor> temperatures;  // [B] float; greedy when absent
  at::Tensor top_ps;                       // [B] float
  at::Tensor top_ks;                       // [B] int64
};

}  // namespace gemma
