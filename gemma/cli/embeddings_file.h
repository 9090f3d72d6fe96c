#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace gemma::cli {

/// A text to be embedded.
struct EmbedText {
  std::string id;  ///< JSON: what its line calls itself, or its number from 0.
  std::string text;
};

/// The texts of a file, or of standard input for "-": one a line, or, where the name ends in
/// .jsonl, objects {"text": …, "id": …}, of which the id may be missing. Empty lines are no texts.
/// Throws std::runtime_error, one line that begins with `flag` or names the file and the line, for
/// what is none of that.
std::vector<EmbedText> read_embed_texts(std::string_view flag, const std::string& path);

/// Throws std::invalid_argument unless the name of the file says a form that write_embeddings has.
void check_embeddings_path(const std::string& path);

/// embeddings float32 [N, dim], a row a text. The name of the file says the form: .npy (numpy),
/// .safetensors (one tensor, "embeddings") or .jsonl, lines {"id": …, "embedding": […]}; "-" is
/// standard output, in lines. Throws std::runtime_error when it cannot be written; then nothing is
/// left of it.
void write_embeddings(const std::string& path,
                      const std::vector<EmbedText>& texts,
                      const at::Tensor& embeddings);

}  // namespace gemma::cli
