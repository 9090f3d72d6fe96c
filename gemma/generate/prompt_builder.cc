#include <algorithm>
#include <array>
#include <utility>

#include <gemma/generate/prompt_builder.h>

namespace gemma {
namespace {

// Pieces of one or another Gemma's vocabulary that are no text where they stand in one. They begin
// with a < or a [.
constexpr std::array<std::string_view, 22> kMarkers = {"<start_of_turn>",
                                                       "<end_of_turn>",
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
                                                       "<start_function_declaration>",
                                                       "<end_function_declaration>",
                                                       "<start_function_call>",
                                                       "<end_function_call>",
                                                       "<start_function_response>",
                                                       "<end_function_response>",
                                                       "<escape>",
                                                       "[multimodal]"};

// Where the text has to be cut so that no marker is left: behind the first letter of each.
size_t next_cut(std::string_view text, size_t from, const std::vector<std::string_view>& markers) {
  for (size_t i = text.find_first_of("<[", from); i < text.size();
       i = text.find_first_of("<[", i + 1)) {
    const auto rest = text.substr(i);
    if (std::ranges::any_of(markers, [&](auto marker) { return rest.starts_with(marker); })) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

}  // namespace

bool has_piece(const Tokenizer& tokenizer, std::string_view piece) {
  return tokenizer.piece_to_id(piece) != tokenizer.piece_to_id("<unk>");
}

PromptBuilder::PromptBuilder(const Tokenizer& tokenizer, bool bos) : tokenizer_(tokenizer) {
  for (const auto marker : kMarkers) {
    if (marker == "<unk>" || has_piece(tokenizer, marker)) markers_.push_back(marker);
  }
  if (bos) ids_.push_back(tokenizer.bos_id());
}

void PromptBuilder::add_marker(std::string_view piece) {
  flush();
  ids_.push_back(tokenizer_.piece_to_id(piece));
}

void PromptBuilder::add_text(std::string_view text) { text_ += text; }

int64_t PromptBuilder::add_ids(std::span<const int64_t> ids) {
  flush();
  const auto before = std::ssize(ids_);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  return before;
}

std::vector<int64_t> PromptBuilder::take() {
  flush();
  return std::move(ids_);
}

// The parts between cuts are encoded on their own: a piece does not reach over a cut.
void PromptBuilder::flush() {
  const std::string_view text = text_;
  for (size_t at = 0; at < text.size();) {
    const auto cut = std::min(next_cut(text, at, markers_), text.size());
    const auto ids = tokenizer_.encode(text.substr(at, cut - at), /*bos=*/false);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    at = cut;
  }
  text_.clear();
}

}  // namespace gemma
