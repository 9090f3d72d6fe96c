#include <algorithm>
#include <array>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/paligemma_config.h>

namespace gemma {
namespace {

struct PaliGemmaSize {
  std::string_view name, text_variant;
};

constexpr std::array kSizes = {
    PaliGemmaSize{"paligemma-3b", "2b"}, PaliGemmaSize{"paligemma2-3b", "2b-v2"},
    PaliGemmaSize{"paligemma2-10b", "9b"}, PaliGemmaSize{"paligemma2-28b", "27b"}};
constexpr std::array<int64_t, 3> kImageSizes = {224, 448, 896};
// Gemma's 256,000 tokens, 1024 places, 128 parts of masks, and rows that stand for none.
constexpr int64_t kVocabulary = 257'216;

}  // namespace

int64_t PaliGemmaConfig::image_seq_length() const {
  const auto side = vision_config.image_size / vision_config.conv2d_patch_size;
  return side * side;
}

void validate(const PaliGemmaConfig& config) {
  validate(config.text_config);
  const auto refuse = [](const std::string& what) {
    throw std::invalid_argument("PaliGemmaConfig: " + what);
  };
  const auto& [text, vision, projection_dim, image_token_id] = config;
  if (text.architecture == Architecture::kGemma3 || text.vision_config) {
    refuse("text_config must be of a Gemma 1 or 2, without a vision_config");
  }
  if (vision.conv2d_patch_size < 1 || vision.image_size < vision.conv2d_patch_size ||
      vision.image_size % vision.conv2d_patch_size != 0) {
    refuse(fmt::format("image_size ({}) must be a multiple of the patches' size ({})",
                       vision.image_size, vision.conv2d_patch_size));
  }
  if (projection_dim != text.hidden_size) {
    refuse(fmt::format("projection_dim ({}) must be the text model's hidden_size ({})",
                       projection_dim, text.hidden_size));
  }
  if (image_token_id < 1) {
    refuse(fmt::format("image_token_id is {}, but must be 1 or more", image_token_id));
  }
}

std::vector<std::string> paligemma_variants() {
  std::vector<std::string> names;
  for (const auto& size : kSizes) {
    for (const auto pixels : kImageSizes) names.push_back(fmt::format("{}-{}", size.name, pixels));
  }
  return names;
}

PaliGemmaConfig get_paligemma_config(std::string_view variant, const std::string& dtype) {
  for (const auto& size : kSizes) {
    for (const auto pixels : kImageSizes) {
      if (variant != fmt::format("{}-{}", size.name, pixels)) continue;
      PaliGemmaConfig config;
      config.text_config = get_model_config(size.text_variant, dtype);
      config.text_config.vocab_size = kVocabulary;
      config.text_config.tokenizer = std::nullopt;
      config.vision_config.image_size = pixels;
      config.vision_config.dtype = dtype;
      config.projection_dim = config.text_config.hidden_size;
      config.vision_config.encoding_sequence_length = config.image_seq_length();
      return config;
    }
  }
  throw std::invalid_argument(fmt::format("PaliGemma '{}' is unknown; valid: {}", variant,
                                          fmt::join(paligemma_variants(), ", ")));
}

}  // namespace gemma
