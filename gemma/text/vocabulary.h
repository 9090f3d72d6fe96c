#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gemma {

/// What a piece is for, by SentencePiece's numbers.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // Never found in text.
  kUserDefined = 4,  // Found in text before all others.
  kUnused = 5,
  kByte = 6,
};

/// A token of a SentencePiece model, as it spells it: "▁the".
struct Piece {
  std::string text;
  float score;
  PieceType type;

  bool operator==(const Piece&) const = default;
};

/// The tokenizer.model (a serialized ModelProto) of Gemma's kind with these pieces, token by token:
/// byte-pair encoding that leaves text as it is, with bytes for what no piece spells. The first
/// four are pad, eos, bos and unk. Throws std::invalid_argument for fewer than four pieces, and for
/// a piece with a NUL or a score that is not finite.
std::string sentencepiece_model(const std::vector<Piece>& pieces);

/// The pieces of a model that SentencePiece has written, which has them at its beginning.
std::vector<Piece> pieces_of(std::string_view model);

/// That model with other pieces, and all else as it was. Throws as sentencepiece_model does.
std::string with_pieces(std::string_view model, const std::vector<Piece>& pieces);

/// As pieces spell blanks: "▁" for each.
std::string with_visible_blanks(std::string_view text);

/// The byte that a piece such as "<0x0A>" stands for; none for other texts.
std::optional<uint8_t> byte_of_piece(std::string_view text);

}  // namespace gemma
