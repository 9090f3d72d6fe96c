#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/models/hf_layout.h>
#include <gemma/models/hf_state_dict.h>

namespace gemma {
namespace {

constexpr auto kEmbedder = "embedder.weight";
constexpr auto kHead = "lm_head.weight";

}  // namespace

StateDict to_hf_state_dict(const torch::nn::Module& module, const GemmaConfig& config) {
  if (config.quant) {
    throw std::invalid_argument(
        "to_transformers_state_dict: transformers does not read the reference's int8 weights");
  }
  StateDict theirs;
  for (const auto& [name, tensor] : weights_of(module)) {
    for (const auto& part : hf_parts(name, tensor.size(0), config)) {
      theirs.emplace_back(part.name, tensor.detach().narrow(0, part.first, part.rows));
    }
    if (name == kEmbedder) theirs.emplace_back(kHead, tensor.detach());
  }
  return theirs;
}

StateDict from_hf_state_dict(const torch::nn::Module& module,
                             const GemmaConfig& config,
                             const StateDict& theirs) {
  const torch::NoGradGuard no_grad;
  std::unordered_map<std::string_view, torch::Tensor> given(theirs.begin(), theirs.end());
  const auto part_of = [&](const HfPart& part, const torch::Tensor& want) {
    const auto found = given.find(part.name);
    if (found == given.end()) {
      throw std::invalid_argument(fmt::format("from_transformers: no tensor '{}'", part.name));
    }
    auto sizes = want.sizes().vec();
    sizes.front() = part.rows;
    // The embedding of Gemma 3 may have more rows than the vocabulary.
    const bool is_longer = found->second.dim() > 0 && found->second.size(0) > part.rows;
    const auto rows = is_longer ? found->second.narrow(0, 0, part.rows) : found->second;
    if (rows.sizes() != at::IntArrayRef(sizes)) {
      throw std::invalid_argument(fmt::format(
          "from_transformers: '{}' is [{}], but by the model's config it should be [{}]", part.name,
          fmt::join(found->second.sizes().vec(), ", "), fmt::join(sizes, ", ")));
    }
    return rows.detach();
  };
  StateDict ours;
  for (const auto& [name, tensor] : weights_of(module)) {
    std::vector<torch::Tensor> parts;
    for (const auto& part : hf_parts(name, tensor.size(0), config)) {
      parts.push_back(part_of(part, tensor));
    }
    ours.emplace_back(name, parts.size() == 1 ? parts.front() : at::cat(parts));
  }
  const auto head = given.find(kHead), embedding = given.find("model.embed_tokens.weight");
  if (head != given.end() && !head->second.is_alias_of(embedding->second) &&
      !at::equal(head->second, embedding->second)) {
    throw std::invalid_argument(
        "from_transformers: 'lm_head.weight' is not the embedding, as it is in every Gemma");
  }
  return ours;
}

}  // namespace gemma
