#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/models/engine_model.h>

namespace gemma::testing {

/// Hidden states of the last of the first `prompt` tokens of a text, and of those behind it one by
/// one, [E] each, when no other text goes through the model.
std::vector<at::Tensor> hidden_states_alone(const EngineModel& model,
                                            std::span<const int64_t> ids,
                                            size_t prompt);

/// A text of a batch.
struct BatchText {
  std::vector<int64_t> ids;
  size_t prompt;  // How many of its tokens go through the model at once.
  size_t joins;   // The step in which they do.
};

/// Feeds the texts to a runner, each to its end; every hidden state has to be, bit for bit, that of
/// the text alone.
void expect_bits_of_texts_alone(const EngineModel& model, const std::vector<BatchText>& texts);

}  // namespace gemma::testing
