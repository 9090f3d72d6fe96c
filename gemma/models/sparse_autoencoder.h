#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/checkpoint.h>

namespace gemma {

/// An autoencoder of Gemma Scope (JumpReLU, https://arxiv.org/abs/2407.14435), or a transcoder,
/// which has another value to tell than the one that it is given. E is the width of these values, F
/// the number of features. Computes in float32.
class SparseAutoencoder {
 public:
  /// w_enc [E, F], b_enc [F], threshold [F], w_dec [F, E], b_dec [E], and, in transcoders that have
  /// it, affine_skip_connection [E, E]; Gemma Scope 1 writes W_enc and W_dec. Throws
  /// std::runtime_error, naming the file, when one is missing, of another shape or not of floats.
  explicit SparseAutoencoder(const Checkpoint& file);

  int64_t width() const { return w_enc_.size(0); }
  int64_t num_features() const { return w_enc_.size(1); }

  /// [T, E] -> how much of each feature is in it, [T, F]; 0 of most.
  at::Tensor encode(const at::Tensor& x) const;
  /// What features [T, F] of x [T, E] say -> [T, E].
  at::Tensor decode(const at::Tensor& features, const at::Tensor& x) const;

 private:
  at::Tensor w_enc_, b_enc_, threshold_, w_dec_, b_dec_;
  std::optional<at::Tensor> skip_;
};

/// The part of the variance of `values` [T, E] that `told` [T, E] tells: 1 is all of it, and 0 what
/// their mean would tell.
double explained_variance(const at::Tensor& values, const at::Tensor& told);

}  // namespace gemma
