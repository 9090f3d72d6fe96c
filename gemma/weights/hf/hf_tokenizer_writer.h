#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <gemma/text/vocabulary.h>

namespace gemma {

/// The tokenizer.json that transformers and tokenizers read, with these pieces. It cuts text as
/// SentencePiece does with them, and puts <bos> before.
std::string hf_tokenizer_json(const std::vector<Piece>& pieces);

/// The tokenizer_config.json beside it.
std::string hf_tokenizer_config(const std::vector<Piece>& pieces);

/// A generation_config.json: texts end with eos, with <end_of_turn> where the vocabulary has it,
/// and with the tokens `stops`.
std::string hf_generation_config(const std::vector<Piece>& pieces,
                                 const std::vector<int64_t>& stops);

}  // namespace gemma
