#pragma once

#include <string>
#include <vector>

#include <gemma/checkpoint/gguf.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

/// The tokenizer in a file: a SentencePiece model, or a GGUF file with the pieces of one. Throws as
/// Tokenizer does, and std::runtime_error, naming the file and the key, when a GGUF file has none.
Tokenizer load_tokenizer(const std::string& path);

/// The pieces in a GGUF file, as Google's tokenizer.model has them. The converters to GGUF change
/// three things: markers such as <start_of_turn> become control tokens, runs of blanks are spelt
/// with blanks, and what is not found by its score has any score.
std::vector<Piece> gguf_pieces(const GgufMetadata& metadata);

}  // namespace gemma
