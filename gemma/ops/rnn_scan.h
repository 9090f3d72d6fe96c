#pragma once

#include <optional>
#include <utility>

#include <ATen/core/Tensor.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: rnn_scan. h[t] = a[t] * h[t - 1] + x[t], where a[t] counts as 0
/// when reset[t]. x and a [B, T, E], reset bool [B, T], h0 [B, E] in acc_dtype or none for zeros
/// -> (h [B, T, E] in x's dtype, the last one [B, E] in acc_dtype). Throws c10::ValueError for
/// shapes and dtypes that do not go together.
std::pair<at::Tensor, at::Tensor> rnn_scan(const at::Tensor& x,
                                           const at::Tensor& a,
                                           const at::Tensor& reset,
                                           const std::optional<at::Tensor>& h0,
                                           at::ScalarType acc_dtype = at::kFloat);

}  // namespace gemma::recurrentgemma
