#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/weights/gguf/gguf_tokenizer.h>

namespace gemma {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";
constexpr auto kTokens = "tokenizer.ggml.tokens";
constexpr auto kScores = "tokenizer.ggml.scores";
constexpr auto kTypes = "tokenizer.ggml.token_type";
constexpr size_t kUnk = 3;
constexpr size_t kByteCount = 256;

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw std::runtime_error(fmt::format(
      "Tokenizer: {}: {}; name the model's tokenizer.model with --tokenizer", path, what));
}

struct Flag {
  std::string_view name;
  bool want;
};
struct Id {
  std::string_view name;
  int64_t want;
};

// Of Gemma's tokenizer; what a file does not say is so.
constexpr std::array kFlags = {Flag{"add_bos_token", true}, Flag{"add_eos_token", false},
                               Flag{"add_sep_token", false}, Flag{"add_space_prefix", false},
                               Flag{"remove_extra_whitespaces", false}};
constexpr std::array kIds = {Id{"bos_token_id", 2}, Id{"unknown_token_id", 3}};
// Read, or of no effect on how text is cut.
constexpr std::array<std::string_view, 9> kOthers = {
    "model",  "pre",          "tokens",           "scores",       "token_type",
    "merges", "added_tokens", "token_type_count", "eos_token_ids"};

bool is_neutral(const GgufMetadata& metadata,
                std::string_view key,
                const GgufMetadata::Value& value) {
  if (value.type == GgufType::kArray) return value.count == 0;
  if (value.type == GgufType::kString) return metadata.get<std::string>(key)->empty();
  if (value.type == GgufType::kBool) return !*metadata.get<bool>(key);
  return *metadata.get<double>(key) == 0;
}

// Keys that say how text is cut.
void check_keys(const GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata.values()) {
    if (!key.starts_with(kPrefix)) continue;
    const auto name = key.substr(kPrefix.size());
    const auto* const flag = std::ranges::find(kFlags, name, &Flag::name);
    const auto* const id = std::ranges::find(kIds, name, &Id::name);
    if (flag != kFlags.end()) {
      if (*metadata.get<bool>(key) == flag->want) continue;
      refuse(metadata.path(),
             fmt::format("key '{}' is {}, but {} for a Gemma", key, !flag->want, flag->want));
    }
    if (id != kIds.end()) {
      const auto given = *metadata.get<int64_t>(key);
      if (given == id->want) continue;
      refuse(metadata.path(),
             fmt::format("key '{}' is {}, but {} for a Gemma", key, given, id->want));
    }
    if (std::ranges::count(kOthers, name) > 0 || name.ends_with("token_id")) continue;
    if (is_neutral(metadata, key, value)) continue;
    refuse(metadata.path(), fmt::format("key '{}' is set, which no Gemma has", printable(key)));
  }
}

struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<double> scores;
  std::vector<PieceType> types;
};

std::vector<PieceType> stored_types(const std::vector<int64_t>& stored, const std::string& path) {
  std::vector<PieceType> types;
  for (const auto type : stored) {
    if (type < static_cast<int64_t>(PieceType::kNormal) ||
        type > static_cast<int64_t>(PieceType::kByte)) {
      refuse(path, fmt::format("token {} is of type {}, not 1 to 6", types.size(), type));
    }
    types.push_back(static_cast<PieceType>(type));
  }
  return types;
}

Vocabulary read_vocabulary(const GgufMetadata& metadata) {
  Vocabulary vocabulary{
      .texts = metadata.require<std::vector<std::string>>(kTokens),
      .scores = metadata.require<std::vector<double>>(kScores),
      .types = stored_types(metadata.require<std::vector<int64_t>>(kTypes), metadata.path())};
  const auto& [texts, scores, types] = vocabulary;
  if (scores.size() != texts.size() || types.size() != texts.size()) {
    refuse(metadata.path(), fmt::format("has {} tokens, {} scores and {} types: it is damaged",
                                        texts.size(), scores.size(), types.size()));
  }
  if (texts.size() <= kUnk || texts[kUnk] != "<unk>") {
    refuse(metadata.path(), "its tokens do not begin with pad, eos, bos and '<unk>'");
  }
  return vocabulary;
}

// Of the 256 bytes in a row, or none.
std::optional<size_t> first_byte(const std::vector<std::string>& texts) {
  const auto first = static_cast<size_t>(std::ranges::find(texts, "<0x00>") - texts.begin());
  if (first + kByteCount > texts.size()) return std::nullopt;
  for (size_t i = 0; i < kByteCount; ++i) {
    if (byte_of_piece(texts[first + i]) != i) return std::nullopt;
  }
  return first;
}

// Exporters call tokens normal that are not. Gemma's vocabulary leaves no doubt: after the first
// four come those that text is searched for first, then the bytes, then the normal ones, whose
// scores fall from each to the next, then more of the first kind.
void mend_types(Vocabulary& vocabulary, const std::string& path) {
  auto& [texts, scores, types] = vocabulary;
  for (size_t id = 0; id < types.size(); ++id) {
    if (id < kUnk) types[id] = PieceType::kControl;
    if (id == kUnk) types[id] = PieceType::kUnknown;
    if (id > kUnk && types[id] == PieceType::kControl) types[id] = PieceType::kUserDefined;
  }
  const auto first = first_byte(texts);
  if (!first) return;
  std::fill_n(types.begin() + static_cast<std::ptrdiff_t>(*first), kByteCount, PieceType::kByte);
  auto lowest = std::numeric_limits<double>::infinity();
  size_t kept = 0, mended = 0;
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] != PieceType::kNormal) continue;
    if (id > *first && scores[id] < lowest) {
      lowest = scores[id];
      ++kept;
    } else {
      types[id] = PieceType::kUserDefined;
      if (id > *first) ++mended;
    }
  }
  if (mended > kept) {
    refuse(path, fmt::format("the scores of its normal tokens ('{}') do not fall", kTypes));
  }
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
           fmt::format("its tokenizer is of kind '{}', not 'llama' (SentencePiece)",
                       printable(model)));
  }
  check_keys(metadata);
  auto vocabulary = read_vocabulary(metadata);
  mend_types(vocabulary, metadata.path());
  std::vector<Piece> pieces;
  pieces.reserve(vocabulary.texts.size());
  for (size_t id = 0; id < vocabulary.texts.size(); ++id) {
    pieces.push_back(
        make_piece(std::move(vocabulary.texts[id]), vocabulary.scores[id], vocabulary.types[id]));
  }
  return pieces;
}

}  // namespace gemma
