#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/generate/fim_prompt.h>
#include <gemma/generate/prompt_builder.h>

namespace gemma {
namespace {

constexpr std::string_view kPrefix = "<|fim_prefix|>";
constexpr std::string_view kSuffix = "<|fim_suffix|>";
constexpr std::string_view kMiddle = "<|fim_middle|>";
constexpr std::string_view kSeparator = "<|file_separator|>";

}  // namespace

FimPrompt::FimPrompt(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (const auto marker : {kPrefix, kSuffix, kMiddle}) {
    if (has_piece(tokenizer, marker)) continue;
    throw std::invalid_argument(fmt::format(
        "fill in the middle: the tokenizer has no {}, so the model was not trained for it; use "
        "CodeGemma 2b or 7b",
        marker));
  }
}

std::vector<int64_t> FimPrompt::encode(std::string_view prefix,
                                       std::string_view suffix,
                                       std::span<const std::string> files) const {
  if (!files.empty() && !has_piece(tokenizer_, kSeparator)) {
    throw std::invalid_argument(fmt::format(
        "fill in the middle: the tokenizer has no {}, so there can be no other files", kSeparator));
  }
  PromptBuilder tokens(tokenizer_, /*bos=*/true);
  for (const auto& file : files) {
    tokens.add_text(file);
    tokens.add_marker(kSeparator);
  }
  tokens.add_marker(kPrefix);
  tokens.add_text(prefix);
  tokens.add_marker(kSuffix);
  tokens.add_text(suffix);
  tokens.add_marker(kMiddle);
  return tokens.take();
}

std::vector<int64_t> FimPrompt::stop_ids() const {
  std::vector<int64_t> ids;
  for (const auto marker : {kPrefix, kSuffix, kMiddle, kSeparator}) {
    if (has_piece(tokenizer_, marker)) ids.push_back(tokenizer_.piece_to_id(marker));
  }
  return ids;
}

}  // namespace gemma
