#include <algorithm>
#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/generate/chat_prompt.h>

namespace gemma {
namespace {

constexpr std::string_view kStart = "<start_of_turn>";
constexpr std::string_view kEnd = "<end_of_turn>";
constexpr std::string_view kUser = "<start_of_turn>user\n";
constexpr std::string_view kModel = "<end_of_turn>\n<start_of_turn>model\n";

// Pieces of the vocabulary that are no text where they stand in one.
constexpr std::array<std::string_view, 15> kMarkers = {kStart,
                                                       kEnd,
                                                       "<start_of_image>",
                                                       "<end_of_image>",
                                                       "<image_soft_token>",
                                                       "<bos>",
                                                       "<eos>",
                                                       "<pad>",
                                                       "<unk>",
                                                       "<mask>",
                                                       "<|fim_prefix|>",
                                                       "<|fim_suffix|>",
                                                       "<|fim_middle|>",
                                                       "<|file_separator|>",
                                                       "[multimodal]"};

// What Python's str.strip() takes away, which the templates call.
constexpr std::array<std::string_view, 29> kBlanks = {
    "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",
    "\x1f",   " ",      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
    "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
    "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

std::string_view stripped(std::string_view text) {
  for (size_t before = text.size() + 1; before != text.size();) {
    before = text.size();
    for (const auto blank : kBlanks) {
      if (text.starts_with(blank)) text.remove_prefix(blank.size());
      if (text.ends_with(blank)) text.remove_suffix(blank.size());
    }
  }
  return text;
}

bool has_piece(const Tokenizer& tokenizer, std::string_view piece) {
  return tokenizer.piece_to_id(piece) != tokenizer.piece_to_id("<unk>");
}

// Where the text has to be cut so that no marker is left: behind the first letter of each.
size_t next_cut(std::string_view text, size_t from) {
  auto cut = std::string_view::npos;
  for (const auto marker : kMarkers) {
    const auto found = text.find(marker, from);
    if (found != std::string_view::npos) cut = std::min(cut, found + 1);
  }
  return cut;
}

}  // namespace

ChatPrompt::ChatPrompt(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  if (has_piece(tokenizer, kStart) && has_piece(tokenizer, kEnd)) return;
  throw std::invalid_argument(
      "chat: the tokenizer has no <start_of_turn>, so the model knows no turns; use gemma run");
}

std::vector<int64_t> ChatPrompt::first(std::string_view text, std::string_view system) const {
  const auto* const between = system.empty() ? "" : "\n\n";
  return encode(kUser, fmt::format("{}{}{}", system, between, stripped(text)), /*bos=*/true);
}

std::vector<int64_t> ChatPrompt::next(std::string_view text) const {
  return encode(fmt::format("{}\n{}", kEnd, kUser), std::string(stripped(text)), /*bos=*/false);
}

int64_t ChatPrompt::end_of_turn() const { return tokenizer_.piece_to_id(kEnd); }

// The parts between cuts are encoded on their own: a piece does not reach over a cut.
std::vector<int64_t> ChatPrompt::encode(std::string_view before,
                                        const std::string& text,
                                        bool bos) const {
  std::vector<int64_t> ids;
  auto part = std::string(before);
  const auto flush = [&] {
    const auto more = tokenizer_.encode(part, /*bos=*/bos && ids.empty());
    ids.insert(ids.end(), more.begin(), more.end());
    part.clear();
  };
  size_t at = 0;
  for (auto cut = next_cut(text, 0); cut != std::string::npos; cut = next_cut(text, at)) {
    part += text.substr(at, cut - at);
    flush();
    at = cut;
  }
  part += text.substr(at);
  part += kModel;
  flush();
  return ids;
}

}  // namespace gemma
