#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/weights/big_vision_layout.h>

namespace gemma {
namespace {

struct Renamed {
  std::string_view theirs, ours;
};

// Of a layer of SigLIP: what is as it is, and products, whose weights change sides.
constexpr std::array kImageVectors = {
    Renamed{"LayerNorm_0/scale", "layer_norm1.weight"},
    Renamed{"LayerNorm_0/bias", "layer_norm1.bias"},
    Renamed{"LayerNorm_1/scale", "layer_norm2.weight"},
    Renamed{"LayerNorm_1/bias", "layer_norm2.bias"},
    Renamed{"MlpBlock_0/Dense_0/bias", "mlp.fc1.bias"},
    Renamed{"MlpBlock_0/Dense_1/bias", "mlp.fc2.bias"},
    Renamed{"MultiHeadDotProductAttention_0/out/bias", "self_attn.o_proj.bias"},
};
constexpr std::array kImageProducts = {
    Renamed{"MlpBlock_0/Dense_0/kernel", "mlp.fc1.weight"},
    Renamed{"MlpBlock_0/Dense_1/kernel", "mlp.fc2.weight"},
};
constexpr std::array kImageHeads = {
    Renamed{"MultiHeadDotProductAttention_0/query/", "self_attn.q_proj."},
    Renamed{"MultiHeadDotProductAttention_0/key/", "self_attn.k_proj."},
    Renamed{"MultiHeadDotProductAttention_0/value/", "self_attn.v_proj."},
};

// Of a layer of Gemma 1, and of Gemma 2, which has a norm behind attention and MLP, too.
constexpr std::array kNorms1 = {
    Renamed{"pre_attention_norm/scale", "input_layernorm.weight"},
    Renamed{"pre_ffw_norm/scale", "post_attention_layernorm.weight"},
};
constexpr std::array kNorms2 = {
    Renamed{"pre_attention_norm/scale", "input_layernorm.weight"},
    Renamed{"post_attention_norm/scale", "post_attention_layernorm.weight"},
    Renamed{"pre_ffw_norm/scale", "pre_feedforward_layernorm.weight"},
    Renamed{"post_ffw_norm/scale", "post_feedforward_layernorm.weight"},
};

const std::vector<int64_t> kTransposed = {1, 0};

class BigVision {
 public:
  BigVision(const Checkpoint& checkpoint, std::string_view prefix)
      : checkpoint_(checkpoint), prefix_(prefix) {}

  Layout layout() && {
    image();
    text();
    return std::move(layout_);
  }

 private:
  // The sizes of a tensor that has to have so many dimensions.
  const std::vector<int64_t>& sizes_of(const std::string& name, size_t dimensions) const {
    const auto* const entry = checkpoint_.find(name);
    if (entry == nullptr) {
      refuse_file(checkpoint_.path(),
                  fmt::format("has no tensor '{}', which every PaliGemma of big_vision has: "
                              "download it again",
                              name));
    }
    if (entry->sizes.size() != dimensions) {
      refuse_file(checkpoint_.path(), fmt::format("tensor '{}' is [{}], not of {} dimensions", name,
                                                  fmt::join(entry->sizes, ", "), dimensions));
    }
    return entry->sizes;
  }

  std::string image_name(std::string_view name) const {
    return fmt::format("{}img/{}", prefix_, name);
  }
  std::string text_name(std::string_view name) const {
    return fmt::format("{}llm/{}", prefix_, name);
  }
  void add(Recipe recipe) { layout_.recipes.push_back(std::move(recipe)); }

  void image() {
    const auto positions = image_name("pos_embedding");
    const auto& sizes = sizes_of(positions, 3);
    add({.name = "siglip_vision_model.patch_embedding.weight",
         .parts = {image_name("embedding/kernel")},
         .order = {3, 2, 0, 1}});
    add({.name = "siglip_vision_model.patch_embedding.bias",
         .parts = {image_name("embedding/bias")}});
    add({.name = "siglip_vision_model.position_embedding.weight",
         .parts = {positions},
         .sizes = {sizes[1], sizes[2]}});
    add({.name = "siglip_vision_model.final_norm.weight",
         .parts = {image_name("Transformer/encoder_norm/scale")}});
    add({.name = "siglip_vision_model.final_norm.bias",
         .parts = {image_name("Transformer/encoder_norm/bias")}});
    add({.name = "multi_modal_projector.linear.weight",
         .parts = {image_name("head/kernel")},
         .order = kTransposed});
    add({.name = "multi_modal_projector.linear.bias", .parts = {image_name("head/bias")}});
    const auto layers = sizes_of(image_block("LayerNorm_0/scale"), 2)[0];
    for (int64_t layer = 0; layer < layers; ++layer) image_layer(layer);
  }

  std::string image_block(std::string_view name) const {
    return image_name(fmt::format("Transformer/encoderblock/{}", name));
  }

  void image_layer(int64_t layer) {
    const auto ours = [&](std::string_view name) {
      return fmt::format("siglip_vision_model.encoder_blocks.{}.{}", layer, name);
    };
    for (const auto& [theirs, name] : kImageVectors) {
      add({.name = ours(name), .parts = {{image_block(theirs), {layer}}}});
    }
    for (const auto& [theirs, name] : kImageProducts) {
      add({.name = ours(name), .parts = {{image_block(theirs), {layer}}}, .order = kTransposed});
    }
    for (const auto& [theirs, name] : kImageHeads) {
      const auto kernel = image_block(fmt::format("{}kernel", theirs));
      const auto& sizes = sizes_of(kernel, 4);  // [layers, in, heads, head]
      add({.name = ours(fmt::format("{}weight", name)),
           .parts = {{kernel, {layer}}},
           .sizes = {sizes[1], sizes[2] * sizes[3]},
           .order = kTransposed});
      add({.name = ours(fmt::format("{}bias", name)),
           .parts = {{image_block(fmt::format("{}bias", theirs)), {layer}}},
           .sizes = {sizes[2] * sizes[3]}});
    }
    const auto out = image_block("MultiHeadDotProductAttention_0/out/kernel");
    const auto& sizes = sizes_of(out, 4);  // [layers, heads, head, out]
    add({.name = ours("self_attn.o_proj.weight"),
         .parts = {{out, {layer}}},
         .sizes = {sizes[1] * sizes[2], sizes[3]},
         .order = kTransposed});
  }

  void text() {
    add({.name = "text_token_embedder.weight", .parts = {text_name("embedder/input_embedding")}});
    add({.name = "model.norm.weight", .parts = {text_name("final_norm/scale")}});
    const auto layers = sizes_of(text_name("layers/pre_attention_norm/scale"), 2)[0];
    for (int64_t layer = 0; layer < layers; ++layer) text_layer(layer);
  }

  void text_layer(int64_t layer) {
    const auto ours = [&](std::string_view name) {
      return fmt::format("model.layers.{}.{}", layer, name);
    };
    const auto theirs = [&](std::string_view name) {
      return text_name(fmt::format("layers/{}", name));
    };
    const auto add_norms = [&](const auto& norms) {
      for (const auto& [name, our] : norms) {
        add({.name = ours(our), .parts = {{theirs(name), {layer}}}});
      }
    };
    const bool is_gemma2 = checkpoint_.contains(theirs("post_ffw_norm/scale"));
    is_gemma2 ? add_norms(kNorms2) : add_norms(kNorms1);
    add_attention(ours("self_attn."), layer);
    const auto gating = theirs("mlp/gating_einsum");
    add({.name = ours("mlp.gate_proj.weight"),
         .parts = {{gating, {layer, 0}}},
         .order = kTransposed});
    add({.name = ours("mlp.up_proj.weight"),
         .parts = {{gating, {layer, 1}}},
         .order = kTransposed});
    add({.name = ours("mlp.down_proj.weight"),
         .parts = {{theirs("mlp/linear"), {layer}}},
         .order = kTransposed});
  }

  void add_attention(const std::string& ours, int64_t layer) {
    const auto queries = text_name("layers/attn/q_einsum/w");
    const auto keys = text_name("layers/attn/kv_einsum/w");
    const auto out = text_name("layers/attn/attn_vec_einsum/w");
    const auto& q = sizes_of(queries, 4);  // [layers, heads, in, head]
    const auto& kv = sizes_of(keys, 5);    // [layers, 2, heads, in, head]
    const auto& o = sizes_of(out, 4);      // [layers, heads, head, out]
    add({.name = ours + "qkv_proj.weight",
         .parts = {{queries, {layer}}, {keys, {layer, 0}}, {keys, {layer, 1}}},
         .order = {0, 2, 1},
         .shape = {q[1] * q[3] + 2 * kv[2] * kv[4], q[2]}});
    add({.name = ours + "o_proj.weight",
         .parts = {{out, {layer}}},
         .sizes = {o[1] * o[2], o[3]},
         .order = kTransposed});
  }

  const Checkpoint& checkpoint_;
  std::string_view prefix_;
  Layout layout_{.name = "big_vision", .recipes = {}};
};

}  // namespace

std::optional<Layout> big_vision_layout(const Checkpoint& checkpoint) {
  for (const std::string_view prefix : {"", "params/"}) {
    if (checkpoint.contains(fmt::format("{}img/embedding/kernel", prefix))) {
      return BigVision(checkpoint, prefix).layout();
    }
  }
  return std::nullopt;
}

}  // namespace gemma
