#include "tests/tiny_paligemma.h"

#include "tests/testing.h"

namespace gemma::testing {

PaliGemmaConfig tiny_paligemma_config(Architecture architecture) {
  PaliGemmaConfig config;
  config.text_config = tiny_config(architecture);
  config.text_config.tokenizer = data_path("tiny.model").string();
  config.text_config.max_position_embeddings = 512;
  config.vision_config.num_hidden_layers = 2;
  config.vision_config.embedding_dim = 28;
  config.vision_config.image_size = 16;
  config.vision_config.conv2d_patch_size = 4;
  config.vision_config.num_attention_heads = 2;
  config.vision_config.head_dim = 14;
  config.vision_config.intermediate_size = 36;
  config.vision_config.encoding_sequence_length = 16;
  config.projection_dim = config.text_config.hidden_size;
  return config;
}

PaliGemmaForConditionalGeneration random_paligemma(Architecture architecture, uint64_t seed) {
  PaliGemmaForConditionalGeneration model(tiny_paligemma_config(architecture));
  randomize(*model, seed);
  // Small, or else the likeliest token would be the one before it.
  model->embedder->weight.mul_(0.1);
  model->eval();
  return model;
}

}  // namespace gemma::testing
