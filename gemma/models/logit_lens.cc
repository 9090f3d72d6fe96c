#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include <gemma/models/logit_lens.h>
#include <gemma/ops/ops.h>

namespace gemma {

LikelyTokens logit_lens(LanguageModel model, const at::Tensor& residual, int64_t count) {
  constexpr int64_t kRows = 32;  // 32 MB of the logits of 262,144 tokens.
  const torch::NoGradGuard no_grad;
  const auto cap = model->logits_softcap();
  std::vector<at::Tensor> ids, probabilities;
  for (const auto& part : residual.split(kRows)) {
    const auto raw = model->logits(model->model->norm(part), /*buffer=*/{});
    const auto logits = (cap ? softcap(raw, *cap) : raw).to(at::kFloat);
    auto [values, indices] = logits.softmax(-1).topk(std::min(count, logits.size(-1)));
    probabilities.push_back(std::move(values));
    ids.push_back(std::move(indices));
  }
  return {at::cat(ids), at::cat(probabilities)};
}

}  // namespace gemma
