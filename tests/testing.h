#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <gemma/config/config.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/ops/attention_types.h>

// What the tests of the modules share: comparisons that explain themselves, models small enough to
// recompute, and an oracle to recompute them with.
namespace gemma::testing {

/// As torch.equal: same shape, dtype and values.
::testing::AssertionResult tensors_equal(const at::Tensor& got, const at::Tensor& want);

/// Same shape and dtype, and |got - want| <= tolerance * (1 + |want|) with the tolerance of the
/// dtype. `want` may be float64 where `got` is not: then it comes from an oracle.
::testing::AssertionResult tensors_close(const at::Tensor& got, const at::Tensor& want);

/// Same shape, and |got - want| <= tolerance times the largest |want|.
::testing::AssertionResult near_to(const at::Tensor& got,
                                   const at::Tensor& want,
                                   double tolerance = 2e-6);

/// Whether `text` has `part` in it.
::testing::AssertionResult contains(std::string_view text, std::string_view part);

/// What the Error says that `function` throws; a failed test if it throws none.
template <typename Error, typename Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

/// tests/data/<name>, found from any directory of the source or build tree.
std::filesystem::path data_path(std::string_view name);

inline constexpr std::array kArchitectures{Architecture::kGemma1, Architecture::kGemma2,
                                           Architecture::kGemma3};

/// "GEMMA_1": the name of a row of a test that runs over kArchitectures.
std::string architecture_name(const ::testing::TestParamInfo<Architecture>& row);

/// A config of awkward sizes: one key/value head, odd hidden and vocabulary sizes, a window shorter
/// than any prompt, layers that are no multiple of attn_types. float32, without a tokenizer; the
/// vocabulary is as large as that of tests/data/tiny.model.
GemmaConfig tiny_config(Architecture architecture);

/// Normally distributed numbers, the same for the same seed.
at::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype = at::kFloat);

/// Token ids of the tiny vocabulary, always the same ones.
at::Tensor random_ids(int64_t rows, int64_t length);

/// Gives every parameter values, the same for the same seed: int8 over its whole range, positive
/// scales, floats that keep activations near 1. Until then parameters hold nothing.
void randomize(torch::nn::Module& module, uint64_t seed);

/// Calls `test(dtype, quant)` for weights of float32 and of bfloat16, and for int8 ones with scales
/// of these, while `dtype` is the default; a failure says for which.
template <typename Test>
void for_each_kind_of_weight(const Test& test) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool quant : {false, true}) {
      SCOPED_TRACE(c10::toString(dtype) + std::string(quant ? ", int8" : ""));
      const DefaultDtypeGuard guard(dtype);
      test(dtype, quant);
    }
  }
}

/// Names as in Python's named_parameters().
std::vector<std::string> parameter_names(const torch::nn::Module& module);

/// What a layer takes besides its hidden states, for the tokens at positions 0 to length - 1 and a
/// cache with a slot for each.
struct LayerInputs {
  at::Tensor freqs_cis;
  at::Tensor positions;
  KVCache cache;
  at::Tensor mask;
  std::optional<at::Tensor> local_mask;
};
LayerInputs layer_inputs(const GemmaConfig& config,
                         AttentionType attn_type,
                         int64_t batch_size,
                         int64_t length,
                         at::ScalarType dtype = at::kFloat);

/// Feeds `ids` [B, L] to the model in pieces of these lengths, with the masks that generate() makes
/// -> the greedy logits [B, V] at the end of each piece.
std::vector<at::Tensor> logits_by_pieces(GemmaForCausalLM model,
                                         const at::Tensor& ids,
                                         const std::vector<int64_t>& pieces);

/// model.py once more, in float64, without caches, masks or complex numbers, from the formulas of
/// the papers: it shares no code with the library. All sequences start at position 0.
namespace oracle {

/// Parameters in float64 by name; int8 ones are multiplied by their scales.
using Weights = std::map<std::string, at::Tensor>;
Weights weights_of(const torch::nn::Module& module);

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps = 1e-6);

/// Rotates the pairs (i, i + D/2) of x [B, L, heads, D] by position * theta^(-2i/D).
at::Tensor rope(const at::Tensor& x, double theta);

/// These take the weights below `prefix` ("model.layers.0.mlp."), x [B, L, E] -> [B, L, E].
at::Tensor mlp(const Weights& weights, const std::string& prefix, const at::Tensor& x);
at::Tensor attention(const Weights& weights,
                     const std::string& prefix,
                     const GemmaConfig& config,
                     AttentionType attn_type,
                     const at::Tensor& x);
at::Tensor decoder_layer(const Weights& weights,
                         const std::string& prefix,
                         const GemmaConfig& config,
                         AttentionType attn_type,
                         const at::Tensor& x);
at::Tensor model(const Weights& weights,
                 const std::string& prefix,
                 const GemmaConfig& config,
                 const at::Tensor& x);

/// Token ids [B, L] -> the logits of GemmaForCausalLM at every position, [B, L, V].
at::Tensor logits(const Weights& weights, const GemmaConfig& config, const at::Tensor& ids);

}  // namespace oracle
}  // namespace gemma::testing
