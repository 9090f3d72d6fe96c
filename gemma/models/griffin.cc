#include <stdexcept>

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <gemma/models/config_bytes.h>
#include <gemma/models/griffin.h>
#include <gemma/ops/ops.h>
#include <gemma/weights/family.h>

namespace gemma::recurrentgemma {
namespace {

constexpr int64_t kConvWidth = 4;

// Rows end together; padding in front of a text is before its position 0.
PassRows rows_of(const torch::Tensor& segment_pos) {
  PassRows rows{{}, /*is_flat=*/false};
  const auto length = segment_pos.size(1);
  const auto last = segment_pos.select(1, length - 1).to(at::kCPU, at::kLong).contiguous();
  for (int64_t row = 0; row < last.size(0); ++row) {
    rows.parts.push_back({row, last.const_data_ptr<int64_t>()[row] - length + 1, length});
  }
  return rows;
}

ResidualBlockCache block_cache(const GriffinConfig& config,
                               TemporalBlockType type,
                               int64_t batch_size,
                               torch::Dtype dtype,
                               torch::Device device) {
  return ResidualBlockImpl::init_cache(batch_size, config.width, config.num_heads,
                                       config.attention_window_size, type, dtype, config.lru_width,
                                       kConvWidth, device);
}

}  // namespace

GriffinImpl::GriffinImpl(const GriffinConfig& config) : config_(config) {
  validate(config);
  embedder = register_module(
      "embedder", Embedder(config.vocab_size, config.width, config.embeddings_scale_by_sqrt_dim));
  for (const auto type : config.block_types) {
    blocks->push_back(ResidualBlock(config.width, config.mlp_expanded_width, config.num_heads,
                                    config.attention_window_size, type, config.lru_width,
                                    kConvWidth));
  }
  register_module("blocks", blocks);
  final_norm = register_module("final_norm", RMSNorm(config.width));
  share_use_lock();
}

std::pair<std::optional<torch::Tensor>, std::optional<Cache>> GriffinImpl::forward(
    const torch::Tensor& tokens,
    const torch::Tensor& segment_pos,
    const std::optional<Cache>& cache,
    bool return_logits,
    bool return_cache,
    const LayerCallback& on_block) {
  if (!return_logits && !return_cache) return {std::nullopt, std::nullopt};
  if (numerics() != Numerics::kExact) {
    throw std::logic_error(
        "Griffin: forward has exact numerics alone; call set_numerics('exact'), or use an Engine");
  }
  TORCH_CHECK_VALUE(!cache || cache->size() == blocks->size(), "Griffin: the cache is of ",
                    cache ? cache->size() : 0, " blocks, but the model has ", blocks->size());
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  std::optional<TapPasses::Pass> pass;
  if (passes().are_watched()) pass.emplace(passes(), rows_of(segment_pos));
  auto x = embedder->encode(tokens);
  Cache next;
  for (size_t i = 0; i < blocks->size(); ++i) {
    const auto own = cache ? std::optional((*cache)[i]) : std::nullopt;
    auto [out, state] = blocks->at<ResidualBlockImpl>(i).forward(x, segment_pos, own, return_cache);
    x = std::move(out);
    if (state) next.push_back(*std::move(state));
    if (on_block) on_block(static_cast<int64_t>(i) + 1, config_.num_layers());
  }
  std::optional<torch::Tensor> logits;
  if (return_logits) {
    logits = tapped("hook_logits", embedder->decode(final_norm(x)));
    if (config_.logits_soft_cap != 0) logits = softcap(*logits, config_.logits_soft_cap);
  }
  return {std::move(logits), return_cache ? std::optional(std::move(next)) : std::nullopt};
}

torch::Tensor GriffinImpl::embed(const torch::Tensor& token_ids) {
  return embedder->encode(token_ids);
}

torch::Tensor GriffinImpl::hidden_states(const torch::Tensor& embeddings,
                                         const Step& step,
                                         const LayerCallback& on_layer) {
  const torch::NoGradGuard no_grad;
  std::optional<TapPasses::Pass> pass;
  if (passes().are_watched()) pass.emplace(passes(), gemma::rows_of(step));
  const auto freqs_cis =
      step_freqs_cis(positions_of(step, device()), config_.width / config_.num_heads);
  auto x = embeddings;
  for (size_t i = 0; i < blocks->size(); ++i) {
    x = blocks->at<ResidualBlockImpl>(i).forward_step(
        x, {freqs_cis, step.pass, step.segments, step.layers[i]});
    if (on_layer) on_layer(static_cast<int64_t>(i) + 1, config_.num_layers());
  }
  return final_norm(x);
}

torch::Tensor GriffinImpl::logits(const torch::Tensor& hidden_states, torch::Tensor buffer) const {
  const torch::NoGradGuard no_grad;
  return tapped("hook_logits",
                ops().logits(hidden_states, embedder->input_embedding, std::move(buffer)));
}

std::vector<LayerKeeps> GriffinImpl::kept_by_layers() const {
  std::vector<LayerKeeps> kept;
  for (const auto& block : *blocks) kept.push_back(block->as<ResidualBlockImpl>()->keeps());
  return kept;
}

int64_t GriffinImpl::max_positions() const {
  // Positions are multiplied as float32, which has all whole numbers up to this one.
  return int64_t{1} << 24;
}

std::optional<double> GriffinImpl::logits_softcap() const {
  return config_.logits_soft_cap != 0 ? std::optional(config_.logits_soft_cap) : std::nullopt;
}

std::string GriffinImpl::config_bytes() const { return gemma::config_bytes(config_); }

Cache GriffinImpl::init_cache(int64_t batch_size, torch::Dtype dtype) const {
  Cache cache;
  for (const auto type : config_.block_types) {
    cache.push_back(
        block_cache(config_, type, batch_size, dtype, embedder->input_embedding.device()));
  }
  return cache;
}

LoadReport GriffinImpl::load_weights(const std::string& model_path, const LoadOptions& options) {
  return load_weights(WeightSource::open(model_path), options);
}

LoadReport GriffinImpl::load_weights(const WeightSource& source, const LoadOptions& options) {
  check_family(source, Family::kRecurrentGemma, "Griffin");
  return gemma::load_weights(*this, source, options);
}

StateSize state_size(const GriffinConfig& config, torch::Dtype dtype) {
  StateSize size;
  const auto bytes = [](const torch::Tensor& tensor) {
    return static_cast<int64_t>(tensor.nbytes());
  };
  for (const auto type : config.block_types) {
    // On the meta device a tensor has sizes and no memory.
    const auto cache = block_cache(config, type, /*batch_size=*/1, dtype, torch::kMeta);
    if (const auto* recurrent = std::get_if<RecurrentBlockCache>(&cache)) {
      size.recurrent += bytes(recurrent->rg_lru_state) + bytes(recurrent->conv1d_state);
    } else {
      const auto& attention = std::get<AttentionBlockCache>(cache);
      size.attention += bytes(attention.keys) + bytes(attention.values);
    }
  }
  return size;
}

}  // namespace gemma::recurrentgemma
