#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gemma {

/// A tensor of a file, or a part of it.
struct Part {
  // NOLINTNEXTLINE(google-explicit-constructor): most parts are whole tensors.
  Part(std::string whole, std::vector<int64_t> part = {})
      : name(std::move(whole)), at(std::move(part)) {}

  std::string name;         // The file's.
  std::vector<int64_t> at;  // As an index: {3, 1} is tensor[3][1].
};

/// How a tensor of gemma_pytorch, or of recurrentgemma, is made from those of a file. The steps are
/// taken in the order of the fields.
struct Recipe {
  std::string name;                            // The reference's.
  std::vector<Part> parts = {};                // Their rows one after another.
  std::optional<int64_t> rows = std::nullopt;  // Only that many of them, from the first.
  std::vector<int64_t> sizes = {};             // Seen as a tensor of these; empty: as it is.
  std::vector<int64_t> order = {};             // Its dimensions in this order; empty: as they are.
  std::vector<int64_t> shape = {};             // Seen as a tensor of these; empty: as it is.
  double plus = 0;                             // Added to each element.

  /// Whether the tensor is the rows of whole tensors, one after another.
  bool only_joins() const {
    return std::ranges::all_of(parts, [](const Part& part) { return part.at.empty(); }) && !rows &&
           sizes.empty() && order.empty() && shape.empty() && plus == 0;
  }

  /// Whether the tensor is the file's, but for its name.
  bool is_alias() const { return parts.size() == 1 && only_joins(); }
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
