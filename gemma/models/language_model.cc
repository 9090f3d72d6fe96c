#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/config/dtype_name.h>
#include <gemma/models/config_bytes.h>
#include <gemma/models/language_model.h>
#include <gemma/models/rope_tables.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/ops.h>
#include <gemma/weights/family.h>
#include <gemma/weights/load_tokenizer.h>

namespace gemma {

LanguageModelImpl::LanguageModelImpl(const GemmaConfig& config, const std::string& embedder_name)
    : config_(config) {
  validate(config);
  if (config.hidden_size % config.num_attention_heads != 0) {
    throw std::invalid_argument(
        fmt::format("GemmaConfig: hidden_size ({}) must be a multiple of num_attention_heads ({})",
                    config.hidden_size, config.num_attention_heads));
  }
  if (config.tokenizer) set_tokenizer(load_tokenizer(*config.tokenizer, config.vocab_size));
  embedder = register_module(embedder_name,
                             Embedding(config.vocab_size, config.hidden_size, config.quant));
  model = register_module("model", GemmaModel(config));
  sampler = register_module("sampler", Sampler(config.vocab_size, config));
  register_freqs_cis();
}

void LanguageModelImpl::register_freqs_cis() {
  const auto tables = make_rope_tables(config_, config_.max_position_embeddings * 2);
  const auto& local = tables.at(AttentionType::kLocalSliding);
  const auto& global = tables.at(AttentionType::kGlobal);
  if (config_.architecture != Architecture::kGemma3) {
    freqs_cis = register_buffer("freqs_cis", global);
    return;
  }
  local_freqs_cis = register_buffer("local_freqs_cis", local);
  global_freqs_cis = register_buffer("global_freqs_cis", global);
}

torch::Tensor LanguageModelImpl::embed(const torch::Tensor& token_ids) {
  return embedder->scaled(token_ids);
}

torch::Tensor LanguageModelImpl::hidden_states(const torch::Tensor& embeddings,
                                               const torch::Tensor& input_positions,
                                               const std::vector<KVCache>& kv_caches,
                                               const torch::Tensor& mask,
                                               const std::optional<torch::Tensor>& local_mask,
                                               const LayerCallback& on_layer,
                                               const LayerRange& range) {
  return model(embeddings, rows_at(rope_tables(), input_positions), input_positions, kv_caches,
               mask, local_mask, on_layer, range);
}

torch::Tensor LanguageModelImpl::hidden_states(const torch::Tensor& embeddings,
                                               const Step& step,
                                               const LayerCallback& on_layer) {
  const torch::NoGradGuard no_grad;
  return model->forward_step(embeddings, rows_at(rope_tables(), positions_of(step, device())), step,
                             on_layer);
}

torch::Tensor LanguageModelImpl::logits(const torch::Tensor& hidden_states,
                                        torch::Tensor buffer) const {
  const torch::NoGradGuard no_grad;
  return tapped("hook_logits", ops().logits(hidden_states, embedder->view(), std::move(buffer)));
}

torch::Tensor LanguageModelImpl::run(const torch::Tensor& input,
                                     const LayerRange& range,
                                     const LayerCallback& on_layer) {
  const UseLock::Use use(use_lock());
  const bool is_residual = input.dim() == 3;
  TORCH_CHECK(
      is_residual || (input.dim() == 2 && range.first == 0),
      "run: input must be what goes into the first layer, [B, L, E], or, for layer 0, token ",
      "ids [B, L]; got ", input.sizes());
  const auto length = input.size(1);
  if (length < 1 || length > config_.max_position_embeddings) {
    throw std::invalid_argument(
        fmt::format("run: {} tokens, but must be 1 to max_position_embeddings, {}", length,
                    config_.max_position_embeddings));
  }
  const auto device = embedder->weight.device();
  const auto given = input.to(device);
  const auto positions = at::arange(length, at::TensorOptions().dtype(at::kLong).device(device));
  const auto window = config_.sliding_window_size;
  std::optional<TapPasses::Pass> pass;
  if (passes().are_watched()) pass.emplace(passes(), PassRows::of_batch(input.size(0), length, 0));
  auto caches = make_kv_caches(input.size(0), length, device);
  if (numerics() == Numerics::kFast) {  // As a ModelRunner's.
    for (auto& [k, v] : caches) {
      k = k.to(at::kFloat);
      v = v.to(at::kFloat);
    }
  }
  const auto hidden = hidden_states(
      is_residual ? given : embed(given), positions, caches, causal_mask(positions, length),
      window ? std::optional(sliding_window_mask(positions, length, *window)) : std::nullopt,
      on_layer, range);
  return range.end ? hidden : all_logits(hidden);
}

torch::Tensor LanguageModelImpl::all_logits(const torch::Tensor& hidden_states) {
  const auto raw = tapped("hook_logits", ops().linear(hidden_states, embedder->view(), Pass::kAny));
  return config_.final_logit_softcapping ? softcap(raw, *config_.final_logit_softcapping) : raw;
}

std::vector<TapPoint> LanguageModelImpl::tap_points() const { return {{"hook_logits"}}; }

std::vector<std::string> LanguageModelImpl::other_names(const std::string& path) const {
  constexpr std::string_view kModel = "model.";
  if (path == "hook_logits" || path == "sampler.hook_logits") {
    return {"unembed.hook_out", "hook_unembed"};
  }
  if (!path.starts_with(kModel)) return {};
  return model->lens_names().of(std::string_view(path).substr(kModel.size()));
}

std::vector<LayerKeeps> LanguageModelImpl::kept_by_layers() const {
  std::vector<LayerKeeps> kept;
  for (const auto& layer : *model->layers) {
    const auto& attention = *layer->as<DecoderLayerImpl>()->self_attn;
    kept.push_back(KeysKept{attention.num_kv_heads(), attention.head_dim(), attention.window()});
  }
  return kept;
}

std::string LanguageModelImpl::config_bytes() const { return gemma::config_bytes(config_); }

FreqsCis LanguageModelImpl::rope_tables() const {
  if (config_.architecture == Architecture::kGemma3) {
    return {{AttentionType::kLocalSliding, local_freqs_cis},
            {AttentionType::kGlobal, global_freqs_cis}};
  }
  return {{AttentionType::kLocalSliding, freqs_cis}, {AttentionType::kGlobal, freqs_cis}};
}

LoadReport LanguageModelImpl::load_weights(const std::string& model_path,
                                           const LoadOptions& options) {
  return load_weights(WeightSource::open(model_path), options);
}

LoadReport LanguageModelImpl::load_weights(const WeightSource& source, const LoadOptions& options) {
  check_family(source, family(), signature().substr(0, signature().find('(')));
  return gemma::load_weights(*this, source, options);
}

std::vector<KVCache> LanguageModelImpl::make_kv_caches(int64_t batch_size,
                                                       int64_t max_seq_len,
                                                       torch::Device device) const {
  const auto dtype = config_.get_dtype();
  if (embedder->dtype() != dtype) {
    throw std::invalid_argument(fmt::format(
        "generate: the weights are {} but config.dtype, the KV cache's, is {}; construct the model "
        "with that default dtype, or set config.dtype",
        dtype_name(embedder->dtype()), config_.dtype));
  }
  check_device(device);
  const auto zeros = [&] {
    return at::zeros({batch_size, max_seq_len, config_.num_key_value_heads, config_.head_dim},
                     at::TensorOptions().dtype(dtype).device(device));
  };
  std::vector<KVCache> caches;
  caches.reserve(static_cast<size_t>(config_.num_hidden_layers));
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) caches.push_back({zeros(), zeros()});
  return caches;
}

void LanguageModelImpl::check_device(torch::Device device) const {
  const auto weights = embedder->weight.device();
  if (weights.type() != device.type()) {
    throw std::invalid_argument(fmt::format("generate: device is {} but the weights are on {}",
                                            device.str(), weights.str()));
  }
}

}  // namespace gemma
