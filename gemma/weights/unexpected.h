#pragma once

#include <string>
#include <vector>

#include <gemma/weights/weight_source.h>
#include <gemma/weights/weights.h>

// Tensors of a file that a model has no place for.
namespace gemma {

/// Those of them that stand for weights: when they are there, weights are missing.
enum class InsteadOfWeights { kYes, kNo };

/// Throws std::runtime_error, naming up to three of `names` (gemma_pytorch's) and what they are,
/// when they change what a model with these `weights` computes: an adapter's factors and quantised
/// weights (kYes); layers beyond the model's, biases, and whatever else is below one of its modules
/// (kNo).
void refuse_changes(const WeightSource& source,
                    const StateDict& weights,
                    const std::vector<std::string>& names,
                    InsteadOfWeights instead);

/// "'a', 'b', 'c' and 12 more".
std::string some_of(const std::vector<std::string>& names);

}  // namespace gemma
