#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/format_error.h>
#include <gemma/weights/hf/hf_tokenizer.h>
#include <gemma/weights/hf/json_events.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr size_t kMaxBytes = size_t{1} << 28;
constexpr size_t kUnk = 3;
constexpr size_t kByteCount = 256;

// What a tokenizer.json may say of how text is cut, and what it means when it is not said.
struct Setting {
  std::string_view path;
  std::vector<json> allowed;  // null also where the key is not there.
};

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {
      {"model.type", {"BPE"}},
      {"model.unk_token", {"<unk>"}},
      {"model.byte_fallback", {true}},
      {"model.fuse_unk", {true, false, nullptr}},  // With byte_fallback nothing is unknown.
      {"model.dropout", {nullptr, 0.0}},
      {"model.continuing_subword_prefix", {nullptr, ""}},
      {"model.end_of_word_suffix", {nullptr, ""}},
      {"model.ignore_merges", {nullptr, false}},
      {"normalizer.type", {"Replace"}},
      {"normalizer.pattern.String", {" "}},
      {"normalizer.content", {"▁"}},
      // Splits at blanks, of which the normalizer has left none.
      {"pre_tokenizer", {nullptr}},
      {"pre_tokenizer.type", {nullptr, "Split"}},
      {"pre_tokenizer.pattern.String", {nullptr, " "}},
      {"pre_tokenizer.behavior", {nullptr, "MergedWithPrevious"}},
      {"pre_tokenizer.invert", {nullptr, false}},
      {"decoder.type", {"Sequence"}},
      {"decoder.decoders.[].type", {"Replace", "ByteFallback", "Fuse"}},
      {"decoder.decoders.[].pattern.String", {"▁"}},
      {"decoder.decoders.[].content", {" "}},
  };
  return all;
}

bool is_setting(const JsonPath& path) {
  constexpr std::array<std::string_view, 4> kParts = {"model", "normalizer", "pre_tokenizer",
                                                      "decoder"};
  return !path.empty() && std::ranges::count(kParts, path[0]) > 0;
}

using Merge = std::pair<std::string, std::string>;

// "a b" in old files.
Merge split(const std::string& text) {
  const auto blank = text.find(' ');
  if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
    format_error("has a merge '{}', which is not of two tokens", printable(text));
  }
  return {text.substr(0, blank), text.substr(blank + 1)};
}

// The parts of the file that say how text is cut.
class Reader {
 public:
  std::vector<std::pair<std::string, int64_t>> vocabulary;
  std::vector<Merge> merges;

  bool on_value(const JsonPath& path, const json& value) {
    if (!is_setting(path)) return true;
    if (path.size() == 3 && path[0] == "model" && path[1] == "vocab") {
      if (!value.is_number_integer()) format_error("has a token whose id is no number");
      vocabulary.emplace_back(path[2], value.get<int64_t>());
    } else if (path.size() >= 3 && path[0] == "model" && path[1] == "merges") {
      if (!value.is_string()) format_error("has a merge that is no text");
      merge(path.size() == 3, value.get_ref<const std::string&>());
    } else {
      setting(joined(path), value);
    }
    return true;
  }

  // What has to be said, and was not.
  void check_complete() const {
    if (is_half_) format_error("has a merge of one token");
    for (const auto& [path, allowed] : settings()) {
      if (std::ranges::count(allowed, json()) > 0 || std::ranges::count(seen_, path) > 0) continue;
      format_error("does not say '{}', which is {} in Gemma's", path, allowed.front().dump());
    }
  }

 private:
  void merge(bool is_whole, const std::string& text) {
    if (is_whole) {
      merges.push_back(split(text));
    } else if (is_half_) {
      merges.back().second = text;
      is_half_ = false;
    } else {
      merges.emplace_back(text, std::string());
      is_half_ = true;
    }
  }

  void setting(const std::string& path, const json& value) {
    const auto known = std::ranges::find(settings(), path, &Setting::path);
    if (known == settings().end()) {
      if (value.is_null() || value == false) return;
    } else if (std::ranges::count(known->allowed, value) > 0) {
      return seen_.push_back(known->path);
    }
    format_error("'{}' is {}, which is not as Gemma's tokenizers cut text", printable(path),
                 printable(value.dump(-1, ' ', true, json::error_handler_t::replace)));
  }

  std::vector<std::string_view> seen_;
  bool is_half_ = false;  // Of the last merge the second half is to come.
};

// The tokens by id. Files without a "\t" of its own have that text for the byte 9.
std::vector<std::string> by_id(Reader& reader) {
  std::vector<std::string> texts(reader.vocabulary.size());
  for (auto& [text, id] : reader.vocabulary) {
    if (id < 0 || id >= std::ssize(texts) || !texts[static_cast<size_t>(id)].empty()) {
      format_error("has {} tokens, but their ids are not 0 to {}", texts.size(), texts.size() - 1);
    }
    texts[static_cast<size_t>(id)] = std::move(text);
  }
  if (texts.size() <= kUnk || texts[kUnk] != "<unk>") {
    format_error("its tokens do not begin with pad, eos, bos and '<unk>', as Gemma's do");
  }
  return texts;
}

std::vector<Piece> pieces_of(std::vector<std::string> texts) {
  std::vector<Piece> pieces;
  const auto first = std::ranges::find(texts, "<0x00>") - texts.begin();
  for (auto& text : texts) {
    const auto id = std::ssize(pieces);
    auto type = id < static_cast<int64_t>(kUnk) ? PieceType::kControl : PieceType::kNormal;
    if (id == static_cast<int64_t>(kUnk)) type = PieceType::kUnknown;
    if (id >= first && id < first + static_cast<int64_t>(kByteCount)) {
      auto spelt = fmt::format("<0x{:02X}>", id - first);
      if (text != spelt && !(text == "\t" && id - first == '\t')) {
        format_error("token {} is '{}', not '{}'", id, printable(text), spelt);
      }
      type = PieceType::kByte;
      text = std::move(spelt);
    }
    pieces.push_back({.text = std::move(text), .score = 0, .type = type});
  }
  if (first + static_cast<int64_t>(kByteCount) > std::ssize(pieces)) {
    format_error("has no tokens '<0x00>' to '<0xFF>', as Gemma's do");
  }
  return pieces;
}

// SentencePiece joins any two neighbours that make a piece, the piece of the highest score first;
// Hugging Face only those that are listed, in the list's order. The two are the same when all pairs
// are listed, those that make one piece together.
class Merges {
 public:
  Merges(std::vector<Piece>& pieces, const std::map<int64_t, AddedToken>& added) : pieces_(pieces) {
    bool has_tab = false;
    for (size_t id = 0; id < pieces.size(); ++id) {
      has_tab |= pieces[id].text == "\t";
      if (pieces[id].type == PieceType::kNormal && !added.contains(static_cast<int64_t>(id))) {
        ids_.emplace(pieces[id].text, id);
      }
    }
    // As a part of others, where it is spelt as a byte.
    if (!has_tab) ids_.emplace("\t", kUnk);
  }

  void give_scores(const std::vector<Merge>& merges) {
    constexpr size_t kNone = SIZE_MAX;
    size_t last = kNone, listed = 0;
    std::vector<bool> has_score(pieces_.size());
    for (const auto& [left, right] : merges) {
      const auto found = ids_.find(left + right);
      if (found == ids_.end() || !ids_.contains(left) || !ids_.contains(right)) continue;
      ++listed;
      const auto id = found->second;
      if (id == last) continue;
      if (has_score[id]) {
        format_error("the merges that make token {} ('{}') are not together", id,
                     printable(pieces_[id].text));
      }
      has_score[id] = true;
      pieces_[last = id].score = next();
    }
    for (const auto& [text, id] : ids_) {
      if (!has_score[id] && id != kUnk) pieces_[id].score = -static_cast<float>(pieces_.size());
    }
    if (const auto all = count_pairs(); all != listed) {
      format_error(
          "lists {} of the {} merges that its tokens allow: it was not made from a "
          "SentencePiece model, as Gemma's are",
          listed, all);
    }
  }

 private:
  float next() { return -static_cast<float>(given_++); }

  size_t count_pairs() const {
    size_t count = 0;
    for (const auto& [text, id] : ids_) {
      for (size_t at = 1; at < text.size(); ++at) {
        const bool is_inside = (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
        if (!is_inside && ids_.contains(text.substr(0, at)) && ids_.contains(text.substr(at))) {
          ++count;
        }
      }
    }
    return count;
  }

  std::vector<Piece>& pieces_;
  std::unordered_map<std::string_view, size_t> ids_;  // Of the pieces that are made by merging.
  int64_t given_ = 0;
};

}  // namespace

std::vector<Piece> hf_pieces(std::string_view text,
                             const std::map<int64_t, AddedToken>& added,
                             const std::string& path) {
  try {
    if (text.size() > kMaxBytes) format_error("has {} bytes, more than {}", text.size(), kMaxBytes);
    Reader reader;
    read_json(text,
              {.on_value = [&](const auto& at, const auto& v) { return reader.on_value(at, v); },
               .on_end = [](const JsonPath&) { return true; }});
    reader.check_complete();
    auto pieces = pieces_of(by_id(reader));
    Merges(pieces, added).give_scores(reader.merges);
    return pieces;
  } catch (const FormatError& error) {
    throw std::runtime_error(fmt::format("Tokenizer: {}: {}", path, error.what()));
  }
}

}  // namespace gemma
