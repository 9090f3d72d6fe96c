#include <algorithm>

#include <ATen/ATen.h>

#include <gemma/engine/model_runner.h>
#include <gemma/generate/loops.h>
#include <gemma/generate/next_tokens.h>

namespace gemma {
namespace {

// Tokens that go through the model together: an image goes whole.
int64_t chunk_for(const std::vector<std::vector<ImageTokens>>& images) {
  auto chunk = RunnerOptions().chunk;
  for (const auto& of_prompt : images) {
    for (const auto& image : of_prompt) chunk = std::max(chunk, image.embeddings.size(0));
  }
  return chunk;
}

}  // namespace

void generate_fast(LanguageModelImpl& model,
                   const GenerateRequest& request,
                   const std::vector<std::vector<ImageTokens>>& images,
                   const GenerateOptions& options,
                   Continuations& continuations) {
  const auto device = model.embedder->weight.device();
  const auto first = at::zeros({1}, at::TensorOptions().dtype(at::kLong).device(device));
  ModelRunner runner(
      LanguageModel(std::dynamic_pointer_cast<LanguageModelImpl>(model.shared_from_this())),
      {.kv_dtype = options.kv_dtype,
       .max_batch = std::ssize(request.prompts),
       .positions = request.max_seq_len(),
       .chunk = chunk_for(images),
       .on_layer = options.on_layer});
  NextTokens next_tokens(model, request);

  std::vector<Sequence> sequences;
  sequences.reserve(request.prompts.size());
  for (int64_t row = 0; row < continuations.size(); ++row) {
    sequences.push_back(runner.make_sequence());
  }
  std::vector<ModelRunner::Feed> feeds;
  feeds.reserve(sequences.size());
  for (size_t row = 0; row < sequences.size(); ++row) {
    feeds.push_back({&sequences[row], request.prompts[row]});
    if (!images.empty()) feeds.back().images = images[row];
  }
  auto hidden = runner.prompt(feeds);  // [B, E], the last token of each.

  // Steps count from the end of the shortest prompt, and each draws for all rows, as the reference
  // does: the random numbers that a text gets depend on it.
  for (int64_t index = request.min_prompt_len(); !continuations.all_ended(); ++index) {
    const auto tokens = next_tokens.sample(hidden.unsqueeze(1), first).cpu();
    const auto* const token = tokens.const_data_ptr<int64_t>();
    std::vector<ModelRunner::Next> nexts;
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < continuations.size(); ++row) {
      if (!continuations.wants(row, index)) continue;
      continuations.add(row, token[row]);
      if (!continuations.wants(row, index + 1)) continue;
      nexts.push_back({&sequences[row], token[row]});
      rows.push_back(row);
    }
    if (options.on_step) options.on_step(index - request.min_prompt_len());
    if (nexts.empty()) continue;
    const auto next = runner.decode(nexts);
    if (std::ssize(rows) == continuations.size()) {
      hidden = next;
    } else {
      hidden.index_copy_(0, at::tensor(rows, at::kLong).to(device), next);
    }
  }
}

}  // namespace gemma
