#include <stdexcept>
#include <string_view>

#include <fmt/format.h>

#include <gemma/cli/hf_tree.h>

namespace gemma::cli {
namespace {

std::string linear(std::string_view name, int64_t in_features, int64_t out_features) {
  return fmt::format("({}): Linear(in_features={}, out_features={}, bias=False)\n", name,
                     in_features, out_features);
}

// Each line two blanks to the right for each level.
class Tree {
 public:
  void open(std::string_view text) {
    line(fmt::format("{}(\n", text));
    ++level_;
  }
  void line(std::string_view text) {
    text_.append(static_cast<size_t>(2 * level_), ' ').append(text);
  }
  void close() {
    --level_;
    line(")\n");
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int level_ = 0;
};

void add_layer(const GemmaConfig& config, Tree& tree) {
  const auto hidden = config.hidden_size, width = config.intermediate_size;
  const auto queries = config.num_attention_heads * config.head_dim;
  const auto keys = config.num_key_value_heads * config.head_dim;
  tree.open("(self_attn): GemmaSdpaAttention");
  tree.line(linear("q_proj", hidden, queries));
  tree.line(linear("k_proj", hidden, keys));
  tree.line(linear("v_proj", hidden, keys));
  tree.line(linear("o_proj", queries, hidden));
  tree.line("(rotary_emb): GemmaRotaryEmbedding()\n");
  tree.close();
  tree.open("(mlp): GemmaMLP");
  tree.line(linear("gate_proj", hidden, width));
  tree.line(linear("up_proj", hidden, width));
  tree.line(linear("down_proj", width, hidden));
  tree.line("(act_fn): PytorchGELUTanh()\n");
  tree.close();
  tree.line("(input_layernorm): GemmaRMSNorm()\n");
  tree.line("(post_attention_layernorm): GemmaRMSNorm()\n");
}

}  // namespace

std::string hf_tree(const GemmaConfig& config) {
  if (config.architecture != Architecture::kGemma1) {
    throw std::invalid_argument(
        fmt::format("--tree hf: the model is {}, but that release of transformers has GEMMA_1 "
                    "alone; leave --tree out",
                    to_string(config.architecture)));
  }
  const auto layers = config.num_hidden_layers;
  Tree tree;
  tree.open("GemmaForCausalLM");
  tree.open("(model): GemmaModel");
  tree.line(fmt::format("(embed_tokens): Embedding({}, {}, padding_idx=0)\n", config.vocab_size,
                        config.hidden_size));
  tree.open("(layers): ModuleList");
  tree.open(layers == 1 ? "(0): GemmaDecoderLayer"
                        : fmt::format("(0-{}): {} x GemmaDecoderLayer", layers - 1, layers));
  add_layer(config, tree);
  tree.close();
  tree.close();
  tree.line("(norm): GemmaRMSNorm()\n");
  tree.close();
  tree.line(linear("lm_head", config.hidden_size, config.vocab_size));
  tree.close();
  return tree.text();
}

}  // namespace gemma::cli
