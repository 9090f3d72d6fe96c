#pragma once

#include <string>
#include <vector>

#include <gemma/models/engine_model.h>

namespace gemma::cli {

/// From now on the model adds a vector to the values of a point, at every token, for each of
/// `flags`, "POINT=FILE[:TENSOR][*FACTOR]": the point's name or a pattern of them, a file of
/// tensors, an .npz or an .npy, and in it a tensor as long as the last dimension of the values.
/// Throws std::invalid_argument and std::runtime_error, one line that names the flag, for what is
/// none of that. Of a wrong length it throws in the first pass through the model.
void add_steering(EngineModel model, const std::vector<std::string>& flags);

}  // namespace gemma::cli
