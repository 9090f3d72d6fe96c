#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include <gemma/models/logit_lens.h>
#include <gemma/text/tokenizer.h>

namespace gemma::cli {

/// What a model would say after each layer, at each token of a text.
struct LensTable {
  std::vector<int64_t> tokens;
  std::vector<LikelyTokens> rows;    ///< Of the embedding, then of each layer.
  std::vector<at::Tensor> patterns;  ///< float32 [H, T, T] of each layer; none when not asked for.
};

/// "embed", then "0", "1", …
std::string lens_row_name(size_t row);

/// {"tokens": [{"id", "piece"}, …], "rows": [{"layer", "positions": [[{"id", "piece",
/// "probability"}, …], …]}, …]}.
nlohmann::ordered_json lens_json(const LensTable& table, const Tokenizer& tokenizer);

/// Rows of layers and columns of tokens, with the likeliest token and how likely it is; as many
/// columns side by side as `width` characters hold.
std::string lens_text(const LensTable& table, const Tokenizer& tokenizer, int64_t width);

}  // namespace gemma::cli
