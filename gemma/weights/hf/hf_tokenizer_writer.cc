#include <algorithm>
#include <cstddef>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include <gemma/weights/hf/hf_tokenizer_writer.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr size_t kPad = 0, kEos = 1, kBos = 2, kUnk = 3;
constexpr std::string_view kEndOfTurn = "<end_of_turn>";

std::ptrdiff_t find(const std::vector<Piece>& pieces, std::string_view text) {
  const auto found = std::ranges::find(pieces, text, &Piece::text);
  return found == pieces.end() ? -1 : found - pieces.begin();
}

// Without a tab of its own the byte is spelt as one, so that it can be merged with others.
std::vector<Piece> spelt(std::vector<Piece> pieces) {
  const auto tab = find(pieces, "<0x09>");
  if (tab >= 0 && find(pieces, "\t") < 0) pieces[static_cast<size_t>(tab)].text = "\t";
  return pieces;
}

json added_tokens(const std::vector<Piece>& pieces) {
  auto added = json::array();
  for (size_t id = 0; id < pieces.size(); ++id) {
    const auto& [text, score, type] = pieces[id];
    const bool is_found_first = type == PieceType::kUserDefined;
    if (!is_found_first && type != PieceType::kControl && type != PieceType::kUnknown) continue;
    const bool is_special = !is_found_first || text == "<start_of_turn>" || text == kEndOfTurn;
    // Blanks are visible once text is normalised, and not before.
    const bool has_blanks = is_found_first && text.find("▁") != std::string::npos;
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", has_blanks},
                     {"special", is_special}});
  }
  return added;
}

// All pairs that make a piece, those of the highest score first.
json merges(const std::vector<Piece>& pieces) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < pieces.size(); ++id) ids.emplace(pieces[id].text, id);
  std::vector<size_t> order;
  for (size_t id = 0; id < pieces.size(); ++id) order.push_back(id);
  std::ranges::sort(order, [&](size_t a, size_t b) {
    const bool is_first = pieces[a].type == PieceType::kUserDefined;
    const bool is_other_first = pieces[b].type == PieceType::kUserDefined;
    if (is_first != is_other_first) return is_first;
    if (is_first || pieces[a].score == pieces[b].score) return a < b;
    return pieces[a].score > pieces[b].score;
  });
  auto all = json::array();
  for (const auto id : order) {
    const auto type = pieces[id].type;
    if (type != PieceType::kNormal && type != PieceType::kUserDefined) continue;
    const std::string_view text = pieces[id].text;
    for (size_t at = 1; at < text.size(); ++at) {
      const auto left = text.substr(0, at), right = text.substr(at);
      if (ids.contains(left) && ids.contains(right)) all.push_back({left, right});
    }
  }
  return all;
}

// <bos>, then the text.
json post_processor(const std::string& bos) {
  const auto text = [](const char* name, int type) {
    return json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const auto special = [&](int type) {
    return json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}};
  };
  const json token = {{"id", bos}, {"ids", {kBos}}, {"tokens", {bos}}};
  return {{"type", "TemplateProcessing"},
          {"single", {special(0), text("A", 0)}},
          {"pair", {special(0), text("A", 0), special(1), text("B", 1)}},
          {"special_tokens", {{bos, token}}}};
}

json model(const std::vector<Piece>& pieces) {
  json vocabulary;
  for (size_t id = 0; id < pieces.size(); ++id) vocabulary[pieces[id].text] = id;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", pieces[kUnk].text},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", true},
          {"ignore_merges", false},
          {"vocab", std::move(vocabulary)},
          {"merges", merges(pieces)}};
}

}  // namespace

std::string hf_tokenizer_json(const std::vector<Piece>& given) {
  const auto pieces = spelt(given);
  const json blank = {{"String", " "}}, visible = {{"String", "▁"}};
  const json decoders = {{{"type", "Replace"}, {"pattern", visible}, {"content", " "}},
                         {{"type", "ByteFallback"}},
                         {{"type", "Fuse"}}};
  const json all = {{"version", "1.0"},
                    {"truncation", nullptr},
                    {"padding", nullptr},
                    {"added_tokens", added_tokens(pieces)},
                    {"normalizer", {{"type", "Replace"}, {"pattern", blank}, {"content", "▁"}}},
                    {"pre_tokenizer",
                     {{"type", "Split"},
                      {"pattern", blank},
                      {"behavior", "MergedWithPrevious"},
                      {"invert", false}}},
                    {"post_processor", post_processor(pieces[kBos].text)},
                    {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
                    {"model", model(pieces)}};
  return all.dump() + "\n";
}

std::string hf_tokenizer_config(const std::vector<Piece>& pieces) {
  constexpr std::string_view kMask = "<mask>";
  const json config = {{"tokenizer_class", "GemmaTokenizer"},
                       {"add_bos_token", true},
                       {"add_eos_token", false},
                       {"bos_token", pieces[kBos].text},
                       {"eos_token", pieces[kEos].text},
                       {"pad_token", pieces[kPad].text},
                       {"unk_token", pieces[kUnk].text},
                       {"mask_token", find(pieces, kMask) < 0 ? json() : json(kMask)},
                       {"clean_up_tokenization_spaces", false},
                       {"spaces_between_special_tokens", false}};
  return config.dump(2) + "\n";
}

std::string hf_generation_config(const std::vector<Piece>& pieces,
                                 const std::vector<int64_t>& stops) {
  std::set<int64_t> ends(stops.begin(), stops.end());
  ends.insert(kEos);
  if (const auto end_of_turn = find(pieces, kEndOfTurn); end_of_turn >= 0) ends.insert(end_of_turn);
  const json config = {{"bos_token_id", kBos},
                       {"eos_token_id", ends.size() == 1 ? json(kEos) : json(ends)},
                       {"pad_token_id", kPad}};
  return config.dump(2) + "\n";
}

}  // namespace gemma
