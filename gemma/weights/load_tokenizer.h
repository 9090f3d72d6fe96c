#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <gemma/config/config.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

/// The tokenizer in a file: a SentencePiece model, a tokenizer.json of Hugging Face, or a GGUF file
/// with the pieces of one. Beside the first two the tokens that hf_added_tokens finds are read; of
/// these only ids below `rows`, the rows of the model's embedding.
///
/// Throws as Tokenizer does, and std::runtime_error, naming the file and the key or the token, when
/// a file is damaged or of another kind.
Tokenizer load_tokenizer(const std::string& path, std::optional<int64_t> rows = std::nullopt);

/// Throws std::runtime_error, naming both numbers and the cure, unless the tokenizer has as many
/// tokens as the model has rows of embedding: else it is not the model's, or the model could answer
/// with tokens that have no text.
void check_vocabulary(const GemmaConfig& config, const Tokenizer& tokenizer);

}  // namespace gemma
