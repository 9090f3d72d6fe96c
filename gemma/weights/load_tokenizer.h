#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <gemma/config/config.h>
#include <gemma/text/tokenizer.h>
#include <gemma/weights/weight_source.h>

namespace gemma {

/// The tokenizer in a file: a SentencePiece model, a tokenizer.json of Hugging Face, or a GGUF file
/// with the pieces of one. Beside the first two the tokens that hf_added_tokens finds are read; of
/// these only ids below `rows`, the rows of the model's embedding.
///
/// Throws as Tokenizer does, and std::runtime_error, naming the file and the key or the token, when
/// a file is damaged or of another kind.
Tokenizer load_tokenizer(const std::string& path, std::optional<int64_t> rows = std::nullopt);

/// The tokenizer that config.tokenizer names, for the weights in `source`; a GGUF file that is
/// `source` itself is not opened again. Throws as above, and std::runtime_error, naming both
/// numbers and the cure, unless the tokenizer has as many tokens as the model has rows of
/// embedding: else it is not the model's, or the model could answer with tokens that have no text.
Tokenizer load_tokenizer(const GemmaConfig& config, const WeightSource& source);

}  // namespace gemma
