#pragma once

#include <vector>

#include <gemma/checkpoint/gguf_metadata.h>
#include <gemma/text/vocabulary.h>

namespace gemma {

/// The pieces in a GGUF file, as Google's tokenizer.model has them. The converters to GGUF change
/// four things: markers such as <start_of_turn> become control or normal tokens, other tokens that
/// are found in text first become normal ones, runs of blanks are spelt with blanks, and what is
/// not found by its score has any score. Throws std::runtime_error, naming the file and the key,
/// when a key is missing, or says of the tokenizer what Gemma's is not.
std::vector<Piece> gguf_pieces(const GgufMetadata& metadata);

}  // namespace gemma
