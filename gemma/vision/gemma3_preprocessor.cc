#include <algorithm>
#include <limits>
#include <stdexcept>

#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/vision/gemma3_preprocessor.h>
#include <gemma/vision/pan_and_scan.h>

namespace gemma {
namespace {

constexpr const char* kBeforeImage = "here is the original image";
constexpr const char* kBeforeCrops = "and here are some crops to help you see better";

// Differs from gemma3_preprocessor.py: there no prompts have an infinite min_prompt_len, and a
// negative output_len gives ids that are longer than max_seq_len.
void check(std::span<const Prompt> raw_input, const GemmaConfig& config, int64_t output_len) {
  if (!config.vision_config) {
    throw std::invalid_argument(
        "tokenize_raw_input: config.vision_config is absent; take the config of a variant that "
        "sees, such as 4b");
  }
  if (config.vision_config->input_channels != 3) {
    throw std::invalid_argument(
        fmt::format("tokenize_raw_input: config.vision_config.input_channels is {}, but images "
                    "have 3",
                    config.vision_config->input_channels));
  }
  if (raw_input.empty()) {
    throw std::invalid_argument("tokenize_raw_input: there are no prompts; give at least 1");
  }
  if (output_len < 0) {
    throw std::invalid_argument(
        fmt::format("tokenize_raw_input: output_len is {}, but must not be negative", output_len));
  }
}

void append_image(const Image& image, int64_t image_size, PreprocessedPrompt& parts) {
  const auto crops = pan_and_scan(image);
  const auto whole = preprocess_images_for_siglip_vision({&image, 1}, image_size);
  if (crops.size() == 1) {
    parts.emplace_back(whole.front());
    return;
  }
  parts.emplace_back(kBeforeImage);
  parts.emplace_back(whole.front());
  parts.emplace_back(kBeforeCrops);
  for (const auto& crop : preprocess_images_for_siglip_vision(crops, image_size)) {
    parts.emplace_back(crop);
  }
}

// -> [B, max_seq_len].
torch::Tensor padded_ids(const std::vector<TokenizedPrompt>& prompts,
                         int64_t max_seq_len,
                         int64_t pad_id) {
  auto ids = at::full({std::ssize(prompts), max_seq_len}, pad_id, at::kLong);
  for (size_t row = 0; row < prompts.size(); ++row) {
    std::ranges::copy(prompts[row].ids, ids[static_cast<int64_t>(row)].mutable_data_ptr<int64_t>());
  }
  return ids;
}

// Sets image_batch and image_presence_mask, for `count` > 0 images a prompt.
void stack_images(const std::vector<TokenizedPrompt>& prompts,
                  int64_t count,
                  int64_t image_size,
                  torch::Device device,
                  ProcessedPrompts& result) {
  const auto blank = at::zeros({3, image_size, image_size}, at::kFloat);
  std::vector<torch::Tensor> rows;
  auto present = at::zeros({std::ssize(prompts), count}, at::kBool);
  for (const auto& prompt : prompts) {
    auto images = prompt.images;
    present[std::ssize(rows)].slice(0, 0, std::ssize(images)).fill_(true);
    images.resize(static_cast<size_t>(count), blank);
    rows.push_back(at::stack(images));
  }
  result.image_batch = at::stack(rows).to(device);
  result.image_presence_mask = present.to(device);
}

}  // namespace

TokenizedPrompt tokenize_prompt(const Tokenizer& tokenizer,
                                const PreprocessedPrompt& prompt,
                                int64_t encoding_sequence_length,
                                bool bos) {
  TokenizedPrompt result;
  auto& ids = result.ids;
  const auto append_text = [&](const std::string& text) {
    const auto tokens = tokenizer.encode(text, /*bos=*/false);
    ids.insert(ids.end(), tokens.begin(), tokens.end());
  };
  if (bos) ids.push_back(tokenizer.bos_id());
  for (const auto& part : prompt) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      append_text(*text);
      continue;
    }
    append_text("\n\n");
    ids.push_back(tokenizer.boi_id());
    ids.insert(ids.end(), static_cast<size_t>(encoding_sequence_length),
               tokenizer.image_token_placeholder_id());
    ids.push_back(tokenizer.eoi_id());
    append_text("\n\n");
    result.images.push_back(std::get<torch::Tensor>(part));
  }
  return result;
}

PreprocessedPrompt gemma3_input_preprocessor(const Prompt& raw_user_prompt, int64_t image_size) {
  PreprocessedPrompt parts;
  for (const auto& part : raw_user_prompt) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      parts.emplace_back(*text);
    } else {
      append_image(std::get<Image>(part), image_size, parts);
    }
  }
  return parts;
}

std::vector<PreprocessedPrompt> gemma3_batch_input_preprocessor(std::span<const Prompt> raw_input,
                                                                int64_t image_size) {
  std::vector<PreprocessedPrompt> prompts;
  prompts.reserve(raw_input.size());
  for (const auto& prompt : raw_input) {
    prompts.push_back(gemma3_input_preprocessor(prompt, image_size));
  }
  return prompts;
}

ProcessedPrompts tokenize_raw_input(const Tokenizer& tokenizer,
                                    std::span<const Prompt> raw_input,
                                    const GemmaConfig& config,
                                    int64_t output_len,
                                    torch::Device device) {
  check(raw_input, config, output_len);
  const auto& vision = *config.vision_config;
  std::vector<TokenizedPrompt> prompts;
  int64_t max_num_images = 0;
  ProcessedPrompts result;
  result.batch_size = std::ssize(raw_input);
  result.min_prompt_len = std::numeric_limits<int64_t>::max();
  for (const auto& prompt : raw_input) {
    prompts.push_back(tokenize_prompt(tokenizer,
                                      gemma3_input_preprocessor(prompt, vision.image_size),
                                      vision.encoding_sequence_length));
    const auto length = std::ssize(prompts.back().ids);
    result.min_prompt_len = std::min<int64_t>(result.min_prompt_len, length);
    result.max_prompt_len = std::max<int64_t>(result.max_prompt_len, length);
    max_num_images = std::max<int64_t>(max_num_images, std::ssize(prompts.back().images));
  }
  result.max_seq_len = result.max_prompt_len + output_len;
  result.user_input_token_ids =
      padded_ids(prompts, result.max_seq_len, tokenizer.pad_id()).to(device);
  if (max_num_images > 0) {
    stack_images(prompts, max_num_images, vision.image_size, device, result);
  }
  return result;
}

}  // namespace gemma
