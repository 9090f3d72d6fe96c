#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include <gemma/text/vocabulary.h>

namespace gemma {
namespace {

constexpr int kPad = 0;
constexpr int kEos = 1;
constexpr int kBos = 2;
constexpr int kUnk = 3;

[[noreturn]] void refuse(size_t id, std::string_view what) {
  throw std::invalid_argument(fmt::format("Tokenizer: piece {} {}", id, what));
}

void check(const std::vector<Piece>& pieces) {
  if (pieces.size() <= kUnk) {
    throw std::invalid_argument(fmt::format(
        "Tokenizer: the vocabulary has {} pieces, but pad, eos, bos and unk alone are four",
        pieces.size()));
  }
  for (size_t id = 0; id < pieces.size(); ++id) {
    // The tries of SentencePiece end a piece there.
    if (pieces[id].text.find('\0') != std::string::npos) refuse(id, "has a NUL in it");
    if (!std::isfinite(pieces[id].score)) refuse(id, "has a score that is NaN or infinite");
  }
}

// sentencepiece_model.proto by its wire format: LibTorch brings other headers of protobuf along
// than those that SentencePiece is built with.
enum Wire : uint64_t { kVarint = 0, kBytes = 2, kFixed32 = 5 };
enum ModelField : uint64_t { kPieces = 1, kTrainer = 2, kNormalizer = 3 };
enum PieceField : uint64_t { kText = 1, kScore = 2, kType = 3 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value > 0x7f; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string tag(uint64_t field, Wire wire) { return varint(field << 3 | wire); }

std::string field(uint64_t number, uint64_t value) { return tag(number, kVarint) + varint(value); }

std::string field(uint64_t number, std::string_view bytes) {
  return (tag(number, kBytes) + varint(bytes.size())).append(bytes);
}

std::string field(uint64_t number, float value) {
  return tag(number, kFixed32).append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string trainer(const std::vector<Piece>& pieces) {
  constexpr uint64_t kBpe = 2;
  const bool has_bytes = std::ranges::count(pieces, PieceType::kByte, &Piece::type) > 0;
  std::string bytes =
      field(3, kBpe) + field(4, uint64_t{pieces.size()}) + field(35, uint64_t{has_bytes});
  uint64_t number = 40;
  for (const int id : {kUnk, kBos, kEos, kPad}) {
    bytes += field(number, static_cast<uint64_t>(id));
    bytes += field(number + 5, std::string_view(pieces[static_cast<size_t>(id)].text));
    ++number;
  }
  return bytes;
}

std::string normalizer() {
  const uint64_t add_dummy_prefix = 0, remove_extra_whitespaces = 0, escape_whitespaces = 1;
  return field(1, std::string_view("identity")) + field(3, add_dummy_prefix) +
         field(4, remove_extra_whitespaces) + field(5, escape_whitespaces);
}

// What is at the front of `bytes`, which loses it. They come from SentencePiece and are whole.
uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(0));
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) return value;
  }
}

std::string_view take(std::string_view& bytes, size_t size) {
  const auto front = bytes.substr(0, size);
  bytes.remove_prefix(front.size());
  return front;
}

Piece read_piece(std::string_view bytes) {
  Piece piece{.text = {}, .score = 0, .type = PieceType::kNormal};
  while (!bytes.empty()) {
    switch (take_varint(bytes) >> 3) {
      case kText:
        piece.text = take(bytes, take_varint(bytes));
        break;
      case kScore:
        std::memcpy(&piece.score, take(bytes, sizeof(float)).data(), sizeof(float));
        break;
      case kType:
        piece.type = static_cast<PieceType>(take_varint(bytes));
        break;
      default:
        throw std::invalid_argument("Tokenizer: a piece has a field that is not known");
    }
  }
  return piece;
}

std::string written(const std::vector<Piece>& pieces) {
  check(pieces);
  std::string model;
  for (const auto& [text, score, type] : pieces) {
    model += field(kPieces,
                   std::string_view(field(kText, std::string_view(text)) + field(kScore, score) +
                                    field(kType, static_cast<uint64_t>(type))));
  }
  return model;
}

// The bytes of the next piece, which `model` loses; none after the last one.
std::optional<std::string_view> take_piece(std::string_view& model) {
  auto rest = model;
  if (rest.empty() || take_varint(rest) != (kPieces << 3 | kBytes)) return std::nullopt;
  const auto piece = take(rest, take_varint(rest));
  model = rest;
  return piece;
}

}  // namespace

std::string sentencepiece_model(const std::vector<Piece>& pieces) {
  return written(pieces) + field(kTrainer, std::string_view(trainer(pieces))) +
         field(kNormalizer, std::string_view(normalizer()));
}

std::vector<Piece> pieces_of(std::string_view model) {
  std::vector<Piece> pieces;
  while (const auto piece = take_piece(model)) pieces.push_back(read_piece(*piece));
  return pieces;
}

std::string with_pieces(std::string_view model, const std::vector<Piece>& pieces) {
  while (take_piece(model)) {
  }
  return written(pieces).append(model);
}

std::string with_visible_blanks(std::string_view text) {
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

std::optional<uint8_t> byte_of_piece(std::string_view text) {
  constexpr std::string_view kBegin = "<0x", kEnd = ">";
  if (text.size() != 6 || !text.starts_with(kBegin) || !text.ends_with(kEnd)) return std::nullopt;
  uint8_t byte = 0;
  const auto digits = text.substr(kBegin.size(), 2);
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), byte, 16);
  if (error != std::errc() || end != digits.end()) return std::nullopt;
  return byte;
}

}  // namespace gemma
