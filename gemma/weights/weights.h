#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <gemma/weights/weight_source.h>

namespace gemma {

/// Tensors by name, in the order of Python's state_dict().
using StateDict = std::vector<std::pair<std::string, torch::Tensor>>;

struct LoadProgress {
  std::string tensor;  // The one just done.
  int64_t tensors_done, tensors_total;
  int64_t bytes_done, bytes_total;  // As the file holds them.
};
using ProgressCallback = std::function<void(const LoadProgress&)>;

struct LoadOptions {
  /// Whether weights that need no other dtype or device stay in the mapped file instead of memory
  /// of their own. Loading takes no time then, but as long as the model lives nobody may write to
  /// the file: the weights would change with it, and a file that is cut off ends the process. A
  /// file that is replaced under its name is safe.
  bool mmap = false;
  /// Whether the matrices of a GGUF stay in its blocks: they take the memory that the file does,
  /// and fast numerics multiply them as they are. Exact ones compute the same either way, but
  /// expand a matrix each time that they multiply by it.
  bool keep_blocks = false;
  /// Called after each tensor.
  ProgressCallback progress = {};
};

struct LoadReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;     // Weights that were left as they were.
  std::vector<std::string> unexpected;  // The file's names of what the model does not have.
};

/// One line about `unexpected`, for a warning: how many, and three of the names. Empty when there
/// are none.
std::string describe_unexpected(const LoadReport& report);

/// Every parameter and buffer of `module`; the tensors are the module's own.
StateDict state_dict(const torch::nn::Module& module);

/// The same without the rotary tables.
StateDict weights_of(const torch::nn::Module& module);

/// Whether `name` is a rotary table: computed from the config, never loaded.
// Differs from model.py: it loads the tables that a file holds. Computed ones are right for every
// context length.
bool is_rope_table(std::string_view name);

/// Gives the parameters of `module` the tensors of the same names, tensor by tensor, so that
/// nothing is in memory twice. Rotary tables in the file are passed over. A quantised model takes
/// int8 and 4-bit weights alike: its parameters become what the file holds.
///
/// Throws std::runtime_error, naming the file, the tensor and the cure, for a weight that is
/// missing, misshapen, or int8 where floats are wanted (or the other way round); and for tensors
/// that would change what the model computes, had it a place for them: biases, an adapter's
/// factors, layers beyond the config, leftovers of other quantisations, and whatever else is below
/// one of its modules. Then, and when `progress` throws, every parameter is as it was.
// Differs from model.py: there strict=False leaves a missing weight unset, and a tensor of the file
// unused, without a word.
LoadReport load_weights(torch::nn::Module& module,
                        const WeightSource& source,
                        const LoadOptions& options = {});

/// Throws as load_weights does for what a file says of its tensors, before any is read.
void check_weights(const torch::nn::Module& module, const WeightSource& source);

/// torch.nn.Module.load_state_dict: copies the tensors into the parameters, or with `assign` takes
/// them as they are. Rotary tables are passed over. Throws std::runtime_error for a shape that does
/// not fit and, if `strict`, for missing or unexpected names; then nothing was changed.
LoadReport load_state_dict(torch::nn::Module& module,
                           const StateDict& tensors,
                           bool strict = true,
                           bool assign = false);

/// The variant (get_model_config) whose shapes the weights have, and whether it is quantised.
struct DetectedVariant {
  std::string variant;
  bool quant;
};

/// Why nothing tells what model the weights are of, for messages: whose names they have, or that
/// the shapes fit no variant.
std::string why_unknown(const WeightSource& source);

/// None when the names and shapes fit no variant.
std::optional<DetectedVariant> detect_variant(const WeightSource& source);

}  // namespace gemma
