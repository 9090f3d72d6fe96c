#include <array>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/format_error.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/hf/hf_tokenizer.h>
#include <gemma/weights/hf/json_events.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Tokens = std::map<int64_t, AddedToken>;

constexpr int64_t kUnk = 3;  // Ids up to it are never found in text.

// The embedding of Gemma 1 and 2, and of Gemma 3.
constexpr int64_t kGemma1Vocabulary = 256000;
constexpr int64_t kGemma3Vocabulary = 262144;
constexpr int64_t kGemma3Padded = 262208;
constexpr std::string_view kImageToken = "<image_soft_token>";  // Gemma 3's first row behind it.

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw std::runtime_error(fmt::format("Tokenizer: {}: {}", path, what));
}

int64_t id_of(const json& value) {
  if (!value.is_number_integer() || value < 0) format_error("has a token whose id is no number");
  return value.get<int64_t>();
}

// The added tokens of one file, field by field.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  void field(std::string_view name, const json& value) {
    if (name == "id") id_ = id_of(value);
    if (name == "content" && value.is_string()) token_.text = value.get<std::string>();
    const bool is_flag = name == "lstrip" || name == "rstrip" || name == "single_word";
    if (is_flag && value == true) token_.strips = true;
  }
  void id(int64_t id) { id_ = id; }

  // Of the token whose fields were given.
  void end() {
    if (!id_ || token_.text.empty()) format_error("has an added token without an id or a text");
    token_.file = file_;
    tokens_.insert_or_assign(*id_, std::exchange(token_, {}));
    id_.reset();
  }

  const Tokens& tokens() const { return tokens_; }

 private:
  std::string file_;
  Tokens tokens_;
  AddedToken token_;
  std::optional<int64_t> id_;
};

// {"added_tokens": [{"id": 4, "content": "<mask>", ...}, ...], ...}, with the list at the beginning
// of a file of many megabytes.
JsonEvents in_tokenizer_json(Reader& reader) {
  constexpr auto kKey = "added_tokens";
  return {.on_value =
              [&](const JsonPath& path, const json& value) {
                if (path.size() == 3 && path[0] == kKey) reader.field(path[2], value);
                return true;
              },
          .on_end =
              [&](const JsonPath& path) {
                if (path.size() == 2 && path[0] == kKey) reader.end();
                return !(path.size() == 1 && path[0] == kKey);
              }};
}

// {"<tool_call>": 262145}
JsonEvents in_added_tokens_json(Reader& reader) {
  return {.on_value =
              [&](const JsonPath& path, const json& value) {
                if (path.size() != 1) format_error("is not an object of ids");
                reader.field("content", path[0]);
                reader.field("id", value);
                reader.end();
                return true;
              },
          .on_end = [](const JsonPath&) { return true; }};
}

// {"added_tokens_decoder": {"4": {"content": "<mask>", ...}, ...}, ...}
JsonEvents in_tokenizer_config_json(Reader& reader) {
  constexpr auto kKey = "added_tokens_decoder";
  return {.on_value =
              [&](const JsonPath& path, const json& value) {
                if (path.size() == 3 && path[0] == kKey) reader.field(path[2], value);
                return true;
              },
          .on_end =
              [&](const JsonPath& path) {
                if (path.size() == 2 && path[0] == kKey) {
                  int64_t id = 0;
                  const auto* const last = path[1].data() + path[1].size();
                  const auto [end, error] = std::from_chars(path[1].data(), last, id);
                  reader.field("id", error == std::errc() && end == last ? json(id) : json());
                  reader.end();
                }
                return true;
              }};
}

struct File {
  std::string_view name;
  JsonEvents (*events)(Reader&);
};

constexpr std::array kFiles = {File{"tokenizer.json", in_tokenizer_json},
                               File{"added_tokens.json", in_added_tokens_json},
                               File{"tokenizer_config.json", in_tokenizer_config_json}};

Tokens read(const fs::path& path, JsonEvents (*events)(Reader&)) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  Reader reader(file.path());
  try {
    read_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, events(reader));
  } catch (const FormatError& error) {
    refuse(file.path(), error.what());
  }
  return reader.tokens();
}

// The piece of an added token's id, which may be one that the vocabulary has anyway.
void check_is_same(const Piece& piece,
                   const std::string& text,
                   int64_t id,
                   const AddedToken& token) {
  const auto byte = byte_of_piece(piece.text);  // Spelt as the byte in old files.
  if (piece.text == text || (byte && text == std::string(1, static_cast<char>(*byte)))) return;
  refuse(token.file,
         fmt::format("token {} is '{}', but '{}' in the vocabulary (tokenizer.model): remove the "
                     "file that is not this model's",
                     id, printable(text), printable(piece.text)));
}

}  // namespace

Tokens hf_added_tokens(const fs::path& folder) {
  Tokens all;
  for (const auto& [name, events] : kFiles) {
    std::error_code unknown;
    const auto path = folder / name;
    if (!fs::is_regular_file(path, unknown)) continue;
    for (auto& [id, token] : read(path, events)) {
      const auto [known, is_new] = all.try_emplace(id, token);
      if (is_new || known->second.text == token.text) continue;
      refuse(token.file,
             fmt::format("token {} is '{}', but '{}' in {}: remove the file that is not this "
                         "model's",
                         id, printable(token.text), printable(known->second.text),
                         known->second.file));
    }
  }
  return all;
}

std::vector<Piece> with_added_tokens(std::vector<Piece> pieces,
                                     const Tokens& added,
                                     std::optional<int64_t> rows) {
  for (const auto& [id, token] : added) {
    if (rows && id >= *rows) break;
    if (id <= kUnk) continue;
    if (token.strips) {
      refuse(token.file,
             fmt::format("token {} ('{}') takes blanks beside it, or is no part of a word "
                         "(lstrip, rstrip, single_word), which SentencePiece cannot do",
                         id, printable(token.text)));
    }
    const auto text = with_visible_blanks(token.text);
    if (id > std::ssize(pieces)) {
      refuse(token.file, fmt::format("has a token {} ('{}'), but none for {}", id, printable(text),
                                     pieces.size()));
    }
    if (id == std::ssize(pieces)) {
      pieces.push_back({.text = text, .score = 0, .type = PieceType::kUserDefined});
      continue;
    }
    auto& piece = pieces[static_cast<size_t>(id)];
    check_is_same(piece, text, id, token);
    const bool is_in_text = piece.type == PieceType::kNormal || piece.type == PieceType::kUnused;
    if (is_in_text) piece = {text, 0, PieceType::kUserDefined};
  }
  return pieces;
}

int64_t hf_vocabulary_rows(int64_t rows, const fs::path& path) {
  const auto base = rows < kGemma3Vocabulary ? kGemma1Vocabulary : kGemma3Vocabulary;
  if (rows <= base) return rows;
  std::error_code unknown;
  auto added = hf_added_tokens(fs::is_directory(path, unknown) ? path : path.parent_path());
  added.erase(added.lower_bound(rows), added.end());
  added.erase(added.begin(), added.lower_bound(base));
  const bool is_published = added.size() == 1 && added.begin()->second.text == kImageToken;
  if (!added.empty() && !is_published) return added.rbegin()->first + 1;
  return rows == kGemma3Padded ? kGemma3Vocabulary : rows;
}

}  // namespace gemma
