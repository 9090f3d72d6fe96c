#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/text/vocabulary.h>

namespace gemma {

/// A token that Hugging Face finds in text before all pieces.
struct AddedToken {
  std::string text;
  std::string file;     // The path of the file that has it, for messages.
  bool strips = false;  // It takes blanks beside it, or is no part of a word.
};

/// The added tokens by id, those that the vocabulary has anyway included: of tokenizer.json,
/// added_tokens.json and tokenizer_config.json in `folder`, whichever are there. Throws
/// std::runtime_error, naming the file, when one is damaged or says another thing than the others.
std::map<int64_t, AddedToken> hf_added_tokens(const std::filesystem::path& folder);

/// `pieces` as they are with the added tokens: those above the last id come behind it, others are
/// found in text first. Tokens from the id `rows` on are left out: the model has none for them.
/// Throws std::runtime_error, naming the file and the token, when a token is not what the piece of
/// its id is, leaves a gap, or does what SentencePiece cannot.
std::vector<Piece> with_added_tokens(std::vector<Piece> pieces,
                                     const std::map<int64_t, AddedToken>& added,
                                     std::optional<int64_t> rows = std::nullopt);

/// The pieces in a tokenizer.json of Gemma's kind, before with_added_tokens: with these
/// SentencePiece cuts text as Hugging Face does. Throws std::runtime_error: one line that names
/// `path`, which serves for nothing else, and what is of another kind.
std::vector<Piece> hf_pieces(std::string_view json,
                             const std::map<int64_t, AddedToken>& added,
                             const std::string& path);

/// How many of the `rows` of an embedding in `path`, a folder or a file, stand for tokens.
/// Published models of Gemma 3 have 64 rows behind the vocabulary, and others pad theirs after
/// adding tokens. Throws as hf_added_tokens does.
int64_t hf_vocabulary_rows(int64_t rows, const std::filesystem::path& path);

}  // namespace gemma
