#include <algorithm>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include <gemma/generate/loops.h>
#include <gemma/generate/paligemma.h>
#include <gemma/modules/masks.h>
#include <gemma/vision/paligemma_preprocessor.h>

namespace gemma {
namespace {

// Images are encoded together.
struct SplitPrompt {
  std::vector<at::Tensor> images;
  std::string text;
};

SplitPrompt split_prompt(const Prompt& prompt, int64_t image_size) {
  SplitPrompt result;
  for (const auto& part : prompt) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      result.text += *text;
    } else if (result.text.empty()) {
      result.images.push_back(paligemma_pixel_values(std::get<Image>(part), image_size));
    } else {
      throw std::invalid_argument(
          "PaliGemma: a prompt has an image behind a text; give images first, then the text");
    }
  }
  return result;
}

}  // namespace

PromptTokens PaliGemmaForConditionalGenerationImpl::prompt_tokens(const Prompt& prompt,
                                                                  const LayerCallback& on_block) {
  const torch::NoGradGuard no_grad;
  const auto [images, text] = split_prompt(prompt, config_.vision_config.image_size);
  const auto device = embedder->weight.device();
  std::optional<at::Tensor> features;
  if (!images.empty()) features = encode_images(at::stack(images).to(device), on_block);

  std::vector<int64_t> ids(images.size() * static_cast<size_t>(config_.image_seq_length()),
                           config_.image_token_id);
  ids.push_back(tokenizer().bos_id());
  const auto words = tokenizer().encode(text + "\n", /*bos=*/false);
  ids.insert(ids.end(), words.begin(), words.end());
  auto embeddings = embed_inputs(at::tensor(ids, at::kLong).unsqueeze(0).to(device), features);
  std::ranges::replace(ids, config_.image_token_id, placeholder_id());
  return {.ids = std::move(ids), .images = {{.first = 0, .embeddings = embeddings[0]}}};
}

std::vector<std::string> PaliGemmaForConditionalGenerationImpl::generate(
    std::span<const Prompt> prompts,
    torch::Device device,
    int64_t output_len,
    std::optional<double> temperature,
    double top_p,
    int64_t top_k,
    const GenerateOptions& options) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  check_sampling(prompts.size(), output_len, temperature, top_p, top_k);
  check_device(device);
  check_lengths(/*max_prompt_len=*/1, output_len, config());
  std::vector<PromptTokens> given;
  TokenRows ids;
  for (const auto& prompt : prompts) {
    given.push_back(prompt_tokens(prompt, options.on_encode));
    ids.push_back(given.back().ids);
  }
  const auto request = make_request(ids, output_len, temperature, top_p, top_k);
  check_lengths(request.max_prompt_len(), output_len, config());
  TokenRows answers;
  if (numerics() == Numerics::kExact) {
    answers = generate_exactly(request, given, device, options);
  } else {
    ModelInputs inputs;
    for (const auto& prompt : given) inputs.images.push_back(prompt.images);
    answers = generate_tokens(*this, device, request, inputs, options);
  }
  std::vector<std::string> texts;
  for (const auto& answer : answers) texts.push_back(tokenizer().decode(answer));
  return texts;
}

// The loop of gemma_pytorch begins with the tokens that all prompts have, but a prefix has to go
// whole.
TokenRows PaliGemmaForConditionalGenerationImpl::generate_exactly(
    const GenerateRequest& request,
    const std::vector<PromptTokens>& prompts,
    torch::Device device,
    const GenerateOptions& options) {
  TokenRows answers;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = make_request({request.prompts[i]}, request.output_lens[i],
                                    request.temperature, request.top_p, request.top_k);
    const auto positions = at::arange(alone.max_seq_len(), at::kLong).to(device);
    const auto is_prefix = (positions < alone.max_prompt_len()).unsqueeze(0);
    const auto window = config().sliding_window_size;
    const ModelInputs inputs{
        .embed =
            [&, first = true](const at::Tensor& token_ids) mutable {
              if (!std::exchange(first, false)) return embed(token_ids);
              return prompts[i].images.front().embeddings.unsqueeze(0);
            },
        .masks =
            [&](const at::Tensor& rows) {
              return Masks{
                  prefix_mask(rows, is_prefix),
                  window ? std::optional(prefix_mask(rows, is_prefix, window)) : std::nullopt};
            },
        .images = {}};
    const auto own = options_for_row(options, static_cast<int64_t>(i));
    answers.push_back(generate_tokens(*this, device, alone, inputs, own).front());
  }
  return answers;
}

}  // namespace gemma
