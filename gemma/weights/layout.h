#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gemma {

/// How a tensor of gemma_pytorch, or of recurrentgemma, is made from those of a file. The steps are
/// taken in the order of the fields.
struct Recipe {
  std::string name;                            // The reference's.
  std::vector<std::string> parts = {};         // The file's tensors, their rows one after another.
  std::optional<int64_t> rows = std::nullopt;  // Only that many of them, from the first.
  std::vector<int64_t> sizes = {};             // Seen as a tensor of these; empty: as it is.
  bool transposed = false;                     // The last two dimensions change places.
  double plus = 0;                             // Added to each element.

  /// Whether the tensor is the file's, but for its name.
  bool is_alias() const {
    return parts.size() == 1 && !rows && sizes.empty() && !transposed && plus == 0;
  }
};

/// The matrix that makes logits, where a file has it, and the embedding that it has to equal.
struct Unembedding {
  std::string name, embedding;  // The file's.
};

/// A way to name the tensors of a model, as found in one file. Tensors of the file that are in no
/// recipe are passed over, so they must change nothing.
struct Layout {
  std::string_view name;  // For messages: "Hugging Face".
  std::vector<Recipe> recipes;
  std::optional<Unembedding> unembedding = std::nullopt;
};

}  // namespace gemma
