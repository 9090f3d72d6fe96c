#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/text/vocabulary.h>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace gemma {

/// tokenizer.py: Tokenizer. Text as UTF-8 bytes <-> token ids, by a SentencePiece model.
class Tokenizer {
 public:
  /// Throws FileNotFound when there is no such file, std::runtime_error when it is not a
  /// SentencePiece model.
  explicit Tokenizer(const std::string& model_path);
  /// From pieces alone: see sentencepiece_model, which says what they must be. Throws
  /// std::invalid_argument as it does, and when SentencePiece takes them for no model.
  static Tokenizer from_pieces(const std::vector<Piece>& pieces);
  /// The same model with other pieces. Throws as from_pieces does.
  Tokenizer with_pieces(const std::vector<Piece>& pieces) const;
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Bytes that are not UTF-8 are read as U+FFFD, one each.
  std::vector<int64_t> encode(std::string_view s, bool bos = true, bool eos = false) const;

  /// Byte pieces that do not join to UTF-8 become U+FFFD, one each; control tokens become nothing.
  /// Throws std::out_of_range for an id outside [0, n_words).
  std::string decode(const std::vector<int64_t>& t) const;

  /// The piece of an id, as the model spells it ("▁the"). Throws as decode does.
  std::string id_to_piece(int64_t id) const;

  /// The id of a piece; that of "<unk>" when there is none.
  int64_t piece_to_id(std::string_view piece) const;

  /// The bytes of a tokenizer.model.
  std::string serialized() const;

  /// All of them, by id.
  std::vector<Piece> pieces() const;

  int64_t n_words() const;
  int64_t bos_id() const;
  int64_t eos_id() const;
  int64_t pad_id() const;
  /// Begin and end of an image, and the placeholder between them, which is pad_id; the reference
  /// sets them for every model.
  int64_t boi_id() const { return 255999; }
  int64_t eoi_id() const { return 256000; }
  int64_t image_token_placeholder_id() const { return pad_id(); }

 private:
  explicit Tokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor);

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace gemma
