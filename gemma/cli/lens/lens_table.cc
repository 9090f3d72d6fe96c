#include <algorithm>
#include <cmath>
#include <string_view>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/cli/json_text.h>
#include <gemma/cli/lens/lens_table.h>

namespace gemma::cli {
namespace {

constexpr int64_t kLabel = 5;  // Columns of "embed".
constexpr int kPiece = 9;      // Of a piece; then a blank and "100%".
constexpr int64_t kCell = kPiece + 7;

// On a line, in at most kPiece characters.
std::string short_piece(const Tokenizer& tokenizer, int64_t id) {
  const auto quoted = to_json(tokenizer.id_to_piece(id));
  const std::string_view piece(quoted.data() + 1, quoted.size() - 2);
  const auto is_first = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  if (std::ranges::count_if(piece, is_first) <= kPiece) return std::string(piece);
  size_t end = 0;
  for (int count = 0; count < kPiece; ++end) {
    if (is_first(piece[end])) ++count;
  }
  return std::string(piece.substr(0, end - 1)) + "…";
}

std::string cell_text(const LikelyTokens& likely, int64_t position, const Tokenizer& tokenizer) {
  const auto id = likely.ids[position][0].item<int64_t>();
  const auto probability = likely.probabilities[position][0].item<double>();
  return fmt::format("  {:<{}} {:>3}%", short_piece(tokenizer, id), kPiece,
                     std::lround(100 * probability));
}

}  // namespace

std::string lens_row_name(size_t row) { return row == 0 ? "embed" : std::to_string(row - 1); }

nlohmann::ordered_json lens_json(const LensTable& table, const Tokenizer& tokenizer) {
  auto tokens = nlohmann::ordered_json::array();
  for (const auto id : table.tokens) {
    tokens.push_back({{"id", id}, {"piece", tokenizer.id_to_piece(id)}});
  }
  auto rows = nlohmann::ordered_json::array();
  for (size_t row = 0; row < table.rows.size(); ++row) {
    const auto& [ids, probabilities] = table.rows[row];
    auto positions = nlohmann::ordered_json::array();
    for (int64_t i = 0; i < ids.size(0); ++i) {
      auto cell = nlohmann::ordered_json::array();
      for (int64_t j = 0; j < ids.size(1); ++j) {
        const auto id = ids[i][j].item<int64_t>();
        cell.push_back({{"id", id},
                        {"piece", tokenizer.id_to_piece(id)},
                        {"probability", probabilities[i][j].item<float>()}});
      }
      positions.push_back(std::move(cell));
    }
    rows.push_back({{"layer", lens_row_name(row)}, {"positions", std::move(positions)}});
  }
  return {{"tokens", std::move(tokens)}, {"rows", std::move(rows)}};
}

std::string lens_text(const LensTable& table, const Tokenizer& tokenizer, int64_t width) {
  const auto count = std::ssize(table.tokens);
  const auto together = std::max<int64_t>(1, (width - kLabel) / kCell);
  std::string text;
  for (int64_t first = 0; first < count; first += together) {
    const auto end = std::min(first + together, count);
    text += fmt::format("{}{:<{}}", first == 0 ? "" : "\n", "layer", kLabel);
    for (auto i = first; i < end; ++i) {
      text += fmt::format("  {:<{}}", short_piece(tokenizer, table.tokens[static_cast<size_t>(i)]),
                          kCell - 2);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
    for (size_t row = 0; row < table.rows.size(); ++row) {
      text += fmt::format("{:<{}}", lens_row_name(row), kLabel);
      for (auto i = first; i < end; ++i) text += cell_text(table.rows[row], i, tokenizer);
      text += '\n';
    }
  }
  return text;
}

}  // namespace gemma::cli
