#include <ATen/core/Tensor.h>

#include <gemma/models/rope_tables.h>
#include <gemma/ops/rotary.h>

namespace gemma {

// Differs from model.py: the text model divides the frequencies of global layers by
// rope_scaling_factor as the multimodal one does. The text parts of 4b and larger ones, which GGUF
// files hold on their own, are nothing without it.
FreqsCis make_rope_tables(const GemmaConfig& config, int64_t positions) {
  constexpr auto kLocal = AttentionType::kLocalSliding;
  constexpr auto kGlobal = AttentionType::kGlobal;
  constexpr int64_t kDefaultTheta = 10'000;
  const auto table = [&](int64_t theta, int64_t factor) {
    return precompute_freqs_cis(config.head_dim, positions, static_cast<double>(theta), factor);
  };
  if (config.architecture != Architecture::kGemma3) {
    const auto both = table(kDefaultTheta, 1);
    return {{kLocal, both}, {kGlobal, both}};
  }
  const auto theta_of = [&](AttentionType type) {
    const auto found = config.rope_wave_length->find(type);
    return found == config.rope_wave_length->end() ? kDefaultTheta : found->second;
  };
  return {{kLocal, table(theta_of(kLocal), 1)},
          {kGlobal, table(theta_of(kGlobal), config.rope_scaling_factor.value_or(1))}};
}

FreqsCis rows_at(const FreqsCis& tables, const at::Tensor& positions) {
  FreqsCis rows;
  for (const auto& [type, table] : tables) rows[type] = table.index_select(0, positions);
  return rows;
}

}  // namespace gemma
