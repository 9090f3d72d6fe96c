// Builds a tiny model through the installed headers and makes it choose a token.
#include <cstdio>

#include <torch/types.h>

#include <gemma/generate/causal_lm.h>

int main() {
  gemma::GemmaConfig config = gemma::get_model_config("270m", "float32");
  config.num_hidden_layers = 2;
  config.vocab_size = 11;
  config.max_position_embeddings = 8;
  config.tokenizer = std::nullopt;
  gemma::GemmaForCausalLM model(config);
  for (auto& parameter : model->parameters()) parameter.fill_(0.5);

  const auto ids = torch::zeros({1, 3}, torch::kLong);
  const auto positions = torch::arange(3);
  auto caches = model->make_kv_caches(/*batch_size=*/1, /*max_seq_len=*/3, torch::kCPU);
  const auto [token, logits] =
      model(ids, positions, std::nullopt, caches, torch::zeros({1, 1, 3, 3}), positions.slice(0, 2),
            std::nullopt, torch::ones({1}), torch::ones({1}, torch::kLong), std::nullopt);
  std::printf("token %ld of %ld\n", token.item<long>(), logits.size(1));
  return logits.size(1) == 11 ? 0 : 1;
}
