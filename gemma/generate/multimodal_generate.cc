#include <algorithm>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/loops.h>
#include <gemma/generate/multimodal_lm.h>
#include <gemma/modules/masks.h>

namespace gemma {
namespace {

// What the reference adds to the scores of keys that are not seen: the lowest number of the model's
// dtype, in float32.
double lowest(torch::Dtype dtype) {
  switch (dtype) {
    case at::kHalf:
      return std::numeric_limits<at::Half>::lowest();
    case at::kBFloat16:
      return std::numeric_limits<at::BFloat16>::lowest();
    default:
      return std::numeric_limits<float>::lowest();
  }
}

at::Tensor additive(const at::Tensor& visible, double masked) {
  const auto floats = visible.options().dtype(at::kFloat);
  return at::where(visible, at::zeros({}, floats), at::full({}, masked, floats));
}

// The prompts of [B, S] without the padding.
TokenRows unpadded(const at::Tensor& token_ids, int64_t pad_id) {
  const auto ids = token_ids.cpu().contiguous();
  TokenRows rows;
  for (const auto* row = ids.const_data_ptr<int64_t>(); std::ssize(rows) < ids.size(0);
       row += ids.size(1)) {
    auto end = row + ids.size(1);
    while (end > row && end[-1] == pad_id) --end;
    rows.emplace_back(row, end);
  }
  return rows;
}

bool images_reach_past(const GenerateRequest& request, int64_t placeholder_id) {
  return std::ranges::any_of(request.prompts, [&](const auto& prompt) {
    return std::ranges::count(prompt.begin() + request.min_prompt_len(), prompt.end(),
                              placeholder_id) > 0;
  });
}

// The images of a prompt: those of `embeddings` [n, U, E] from `next` on stand where placeholders
// do.
std::vector<ImageTokens> place_images(std::span<const int64_t> prompt,
                                      int64_t placeholder,
                                      const at::Tensor& embeddings,
                                      int64_t& next) {
  std::vector<ImageTokens> images;
  for (auto at = prompt.begin();;) {
    at = std::find(at, prompt.end(), placeholder);
    if (at == prompt.end()) return images;
    images.push_back({at - prompt.begin(), embeddings[next++]});
    at += embeddings.size(1);
  }
}

// The same for each prompt.
std::vector<std::vector<ImageTokens>> place_images(Gemma3ForMultimodalLMImpl& model,
                                                   const TokenRows& prompts,
                                                   const ProcessedPrompts& processed,
                                                   const LayerCallback& on_encode) {
  if (!processed.image_batch) return {};
  const auto present = processed.image_presence_mask->flatten().nonzero().squeeze(1);
  const auto embeddings =
      model.encode_images(processed.image_batch->flatten(0, 1).index_select(0, present), on_encode);
  const auto placeholder = model.tokenizer().image_token_placeholder_id();
  std::vector<std::vector<ImageTokens>> images;
  int64_t next = 0;
  for (const auto& prompt : prompts) {
    images.push_back(place_images(prompt, placeholder, embeddings, next));
  }
  return images;
}

// The masks of the reference's loop: made for the rows in use, from the number of the image that
// each token belongs to.
class MultimodalMasks {
 public:
  MultimodalMasks(const GemmaConfig& config, const at::Tensor& is_image)
      : blocks_(image_blocks(is_image)),
        window_(*config.sliding_window_size),
        masked_(lowest(config.get_dtype())) {}

  Masks operator()(const at::Tensor& positions) const {
    return {additive(visible_keys(positions, blocks_), masked_),
            additive(visible_keys(positions, blocks_, window_), masked_)};
  }

 private:
  at::Tensor blocks_;  // [B, S]
  int64_t window_;
  double masked_;
};

// Which of the tokens [B, S] are an image's: placeholders. As the padding's id is the same, the
// places for generated tokens are one more image to the reference.
at::Tensor image_tokens(const Gemma3ForMultimodalLMImpl& model,
                        const ProcessedPrompts& processed,
                        const TokenRows& prompts,
                        bool reference_tail_mask) {
  const auto& ids = processed.user_input_token_ids;
  auto is_image = ids == model.tokenizer().image_token_placeholder_id();
  if (reference_tail_mask) return is_image;
  for (size_t i = 0; i < prompts.size(); ++i) {
    is_image[static_cast<int64_t>(i)].slice(0, std::ssize(prompts[i])).fill_(false);
  }
  return is_image;
}

}  // namespace

PromptTokens Gemma3ForMultimodalLMImpl::prompt_tokens(const Prompt& prompt, bool bos) {
  const torch::NoGradGuard no_grad;
  const auto& vision = *config().vision_config;
  auto [ids, images] =
      tokenize_prompt(tokenizer(), gemma3_input_preprocessor(prompt, vision.image_size),
                      vision.encoding_sequence_length, bos);
  PromptTokens result{.ids = std::move(ids), .images = {}};
  if (images.empty()) return result;
  const auto embeddings = encode_images(at::stack(images).to(embedder->weight.device()));
  int64_t next = 0;
  result.images =
      place_images(result.ids, tokenizer().image_token_placeholder_id(), embeddings, next);
  return result;
}

std::vector<std::string> Gemma3ForMultimodalLMImpl::generate(std::span<const Prompt> prompts,
                                                             torch::Device device,
                                                             int64_t output_len,
                                                             std::optional<double> temperature,
                                                             double top_p,
                                                             int64_t top_k,
                                                             const GenerateOptions& options) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  check_sampling(prompts.size(), output_len, temperature, top_p, top_k);
  if (!config().sliding_window_size) {
    throw std::invalid_argument("generate: sliding_window_size is none, but must be given");
  }
  check_device(device);
  // Differs from gemma3_model.py: no more than max_position_embeddings. First without the prompts,
  // as rows of all of output_len are made of them.
  check_lengths(/*max_prompt_len=*/1, output_len, config());
  const auto processed = tokenize_raw_input(tokenizer(), prompts, config(), output_len, device);
  check_lengths(processed.max_prompt_len, output_len, config());
  auto request = make_request(unpadded(processed.user_input_token_ids, tokenizer().pad_id()),
                              output_len, temperature, top_p, top_k);
  const bool exact = numerics() == Numerics::kExact;
  std::vector<std::string> results;
  if (exact && images_reach_past(request, tokenizer().image_token_placeholder_id())) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto alone = options_for_row(options, static_cast<int64_t>(i));
      results.push_back(
          generate(prompts.subspan(i, 1), device, output_len, temperature, top_p, top_k, alone)
              .front());
    }
    return results;
  }
  // Every row is filled up to its end.
  for (size_t i = 0; i < prompts.size(); ++i) {
    request.output_lens[i] = processed.max_seq_len - std::ssize(request.prompts[i]);
  }
  const ModelInputs inputs{
      .embed =
          [this, &processed, &options, first = true](const at::Tensor& token_ids) mutable {
            if (!first) return embed(token_ids);
            first = false;
            return embed_prompts(token_ids, processed.image_batch, processed.image_presence_mask,
                                 options.on_encode);
          },
      .masks = MultimodalMasks(
          config(), image_tokens(*this, processed, request.prompts, options.reference_tail_mask)),
      .images = exact ? std::vector<std::vector<ImageTokens>>{}
                      : place_images(*this, request.prompts, processed, options.on_encode)};
  const auto texts = generate_tokens(*this, device, request, inputs, options);
  for (size_t i = 0; i < texts.size(); ++i) {
    auto tokens = request.prompts[i];
    tokens.insert(tokens.end(), texts[i].begin(), texts[i].end());
    tokens.erase(std::ranges::find(tokens, tokenizer().eos_id()), tokens.end());
    results.push_back(tokenizer().decode(tokens));
  }
  return results;
}

}  // namespace gemma
