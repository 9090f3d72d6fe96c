#include <array>
#include <fstream>
#include <span>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/gguf/gguf_tokenizer.h>

namespace gemma {
namespace {

constexpr auto kTokens = "tokenizer.ggml.tokens";
constexpr auto kScores = "tokenizer.ggml.scores";
constexpr auto kTypes = "tokenizer.ggml.token_type";
constexpr size_t kUnk = 3;

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw std::runtime_error(fmt::format("Tokenizer: {}: {}", path, what));
}

// A file that is not there or too short is left to the other reader.
bool begins_as_gguf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 4> begin{};
  return file.read(begin.data(), begin.size()) && is_gguf(std::as_bytes(std::span(begin)));
}

std::string with_visible_blanks(const std::string& text) {
  std::string spelt;
  for (const char c : text) {
    if (c == ' ') {
      spelt += "▁";
    } else {
      spelt += c;
    }
  }
  return spelt;
}

PieceType type_of(size_t id, int64_t stored, const std::string& path) {
  if (stored < static_cast<int64_t>(PieceType::kNormal) ||
      stored > static_cast<int64_t>(PieceType::kByte)) {
    refuse(path, fmt::format("token {} is of type {}, not 1 to 6", id, stored));
  }
  const auto type = static_cast<PieceType>(stored);
  if (type != PieceType::kControl || id < kUnk) return type;
  return id == kUnk ? PieceType::kUnknown : PieceType::kUserDefined;
}

Piece make_piece(std::string text, double score, PieceType type) {
  if (type == PieceType::kUserDefined) text = with_visible_blanks(text);
  const bool is_scored =
      type == PieceType::kNormal || type == PieceType::kUnused || type == PieceType::kByte;
  return {std::move(text), is_scored ? static_cast<float>(score) : 0, type};
}

}  // namespace

std::vector<Piece> gguf_pieces(const GgufMetadata& metadata) {
  const auto model = metadata.require<std::string>("tokenizer.ggml.model");
  if (model != "llama") {
    refuse(metadata.path(),
           fmt::format("its tokenizer is of kind '{}', not 'llama' (SentencePiece); name a "
                       "tokenizer.model with --tokenizer",
                       printable(model)));
  }
  auto texts = metadata.require<std::vector<std::string>>(kTokens);
  const auto scores = metadata.require<std::vector<double>>(kScores);
  const auto types = metadata.require<std::vector<int64_t>>(kTypes);
  if (scores.size() != texts.size() || types.size() != texts.size()) {
    refuse(metadata.path(), fmt::format("has {} tokens, {} scores and {} types: it is damaged",
                                        texts.size(), scores.size(), types.size()));
  }
  std::vector<Piece> pieces;
  pieces.reserve(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    pieces.push_back(
        make_piece(std::move(texts[id]), scores[id], type_of(id, types[id], metadata.path())));
  }
  return pieces;
}

Tokenizer load_tokenizer(const std::string& path) {
  if (!begins_as_gguf(path)) return Tokenizer(path);
  const MappedFile file(path);
  const auto pieces = gguf_pieces(read_gguf(file.bytes(), path).metadata);
  try {
    return Tokenizer::from_pieces(pieces);
  } catch (const std::invalid_argument& error) {
    refuse(path, error.what());
  }
}

}  // namespace gemma
