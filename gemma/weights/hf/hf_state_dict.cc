#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/weights/hf/hf_layout.h>
#include <gemma/weights/hf/hf_state_dict.h>

namespace gemma {
namespace {

constexpr auto kEmbedding = "model.embed_tokens.weight";
constexpr auto kHead = "lm_head.weight";

// The tensors of a model of transformers, by their plain names.
class Given {
 public:
  explicit Given(const StateDict& theirs) {
    std::vector<std::string> names;
    for (const auto& [name, _] : theirs) names.push_back(name);
    names = hf_plain_names(std::move(names));
    for (size_t i = 0; i < names.size(); ++i) tensors_.emplace(names[i], theirs[i].second);
  }

  // A part of a weight of ours, of the sizes `want` but for its rows.
  torch::Tensor part(const HfPart& part, at::IntArrayRef want) const {
    const auto found = tensors_.find(hf_plain_name(part.name));
    if (found == tensors_.end()) {
      throw std::invalid_argument(fmt::format("from_transformers: no tensor '{}'", part.name));
    }
    auto sizes = want.vec();
    sizes.front() = part.rows;
    const auto given = part.transposed ? found->second.t() : found->second;
    // The embedding of Gemma 3 may have more rows than the vocabulary.
    const bool is_longer = given.dim() > 0 && given.size(0) > part.rows;
    const auto rows = is_longer ? given.narrow(0, 0, part.rows) : given;
    if (rows.sizes() != at::IntArrayRef(sizes)) {
      throw std::invalid_argument(fmt::format(
          "from_transformers: '{}' is [{}], but by the model's config it should be [{}]", part.name,
          fmt::join(given.sizes().vec(), ", "), fmt::join(sizes, ", ")));
    }
    return rows.detach().contiguous();
  }

  void check_head() const {
    const auto head = tensors_.find(kHead), embedding = tensors_.find(kEmbedding);
    if (head == tensors_.end() || head->second.is_alias_of(embedding->second)) return;
    if (at::equal(head->second, embedding->second)) return;
    throw std::invalid_argument(
        "from_transformers: 'lm_head.weight' is not the embedding, as it is in every Gemma");
  }

 private:
  std::unordered_map<std::string, torch::Tensor> tensors_;
};

}  // namespace

StateDict to_hf_state_dict(const torch::nn::Module& module, const GemmaConfig& config) {
  if (config.quant) {
    throw std::invalid_argument(
        "to_transformers_state_dict: transformers does not read the reference's int8 weights");
  }
  StateDict theirs;
  for (const auto& [name, tensor] : weights_of(module)) {
    for (const auto& part : hf_parts(name, tensor.size(0), config)) {
      const auto rows = tensor.detach().narrow(0, part.first, part.rows);
      theirs.emplace_back(hf_plain_name(part.name), part.transposed ? rows.t() : rows);
      if (theirs.back().first == kEmbedding) theirs.emplace_back(kHead, rows);
    }
  }
  return theirs;
}

StateDict from_hf_state_dict(const torch::nn::Module& module,
                             const GemmaConfig& config,
                             const StateDict& theirs) {
  const torch::NoGradGuard no_grad;
  const Given given(theirs);
  StateDict ours;
  for (const auto& [name, tensor] : weights_of(module)) {
    std::vector<torch::Tensor> parts;
    for (const auto& part : hf_parts(name, tensor.size(0), config)) {
      parts.push_back(given.part(part, tensor.sizes()));
    }
    ours.emplace_back(name, parts.size() == 1 ? parts.front() : at::cat(parts));
  }
  given.check_head();
  return ours;
}

}  // namespace gemma
