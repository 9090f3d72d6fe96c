#include <algorithm>
#include <numeric>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/models/embedding_gemma.h>
#include <gemma/models/engine_model.h>
#include <gemma/models/rope_tables.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>
#include <gemma/weights/load_tokenizer.h>

namespace gemma {
namespace {

using TokenIds = std::vector<int64_t>;

// Tokens that go through the layers together, unless one text alone has more.
constexpr int64_t kTokensTogether = 2048;

// Blocks for the keys and values of one layer, which the next one writes over: every token of a
// pass writes its own before any reads.
class TextCaches {
 public:
  TextCaches(std::span<const TokenIds> texts, const GemmaConfig& config, torch::Device device) {
    int64_t blocks = 0;
    for (const auto& text : texts) blocks += BlockCache::blocks_for(std::ssize(text));
    ids_.resize(static_cast<size_t>(blocks));
    std::iota(ids_.begin(), ids_.end(), 0);
    const auto width = BlockCache::padded(config.head_dim);
    const auto empty = [&] {
      return at::empty({blocks, config.num_key_value_heads, BlockCache::kPositions, width},
                       at::TensorOptions().dtype(at::kFloat).device(device));
    };
    int64_t first_token = 0;
    size_t block = 0;
    for (const auto& text : texts) {
      const auto tokens = std::ssize(text);
      const auto count = static_cast<size_t>(BlockCache::blocks_for(tokens));
      segments_.push_back({.first_token = first_token,
                           .tokens = tokens,
                           .position = 0,
                           .bidirectional = true,
                           .window_side = WindowSide::kBoth});
      tables_.push_back({std::span(ids_).subspan(block, count)});
      first_token += tokens;
      block += count;
    }
    layers_.assign(static_cast<size_t>(config.num_hidden_layers),
                   AttentionState{{empty(), empty()}, tables_});
  }

  Step step() const { return {Pass::kPrompt, segments_, layers_}; }

 private:
  std::vector<int32_t> ids_;
  std::vector<Segment> segments_;
  std::vector<BlockTable> tables_;
  std::vector<LayerState> layers_;
};

// torch.nn.functional.normalize.
torch::Tensor normalized(const torch::Tensor& x) {
  return x / x.norm(2, /*dim=*/-1, /*keepdim=*/true).clamp_min(1e-12);
}

}  // namespace

TextEncoderImpl::TextEncoderImpl(const GemmaConfig& config) {
  embedder =
      register_module("embedder", Embedding(config.vocab_size, config.hidden_size, config.quant));
  model = register_module("model", GemmaModel(config));
  const auto tables = make_rope_tables(config, config.max_position_embeddings);
  local_freqs_cis = register_buffer("local_freqs_cis", tables.at(AttentionType::kLocalSliding));
  global_freqs_cis = register_buffer("global_freqs_cis", tables.at(AttentionType::kGlobal));
}

torch::Tensor TextEncoderImpl::forward(std::span<const TokenIds> texts,
                                       const LayerCallback& on_layer) {
  const auto device = embedder->weight.device();
  const TextCaches caches(texts, model->config(), device);
  TokenIds ids;
  for (const auto& text : texts) ids.insert(ids.end(), text.begin(), text.end());
  const auto step = caches.step();
  const FreqsCis tables{{AttentionType::kLocalSliding, local_freqs_cis},
                        {AttentionType::kGlobal, global_freqs_cis}};
  return model->forward_step(embedder->scaled(at::tensor(ids, at::kLong).to(device)),
                             rows_at(tables, positions_of(step, device)), step, on_layer);
}

DenseImpl::DenseImpl(int64_t in_features, int64_t out_features)
    : linear(register_module("linear", Linear(in_features, out_features, /*quant=*/false))) {}

torch::Tensor DenseImpl::forward(const torch::Tensor& x) { return linear(x, Pass::kPrompt); }

EmbeddingGemmaImpl::EmbeddingGemmaImpl(const EmbeddingGemmaConfig& config) : config_(config) {
  validate(config);
  if (config.text.tokenizer) {
    tokenizer_ = load_tokenizer(*config.text.tokenizer, config.text.vocab_size);
  }
  encoder = register_module("encoder", TextEncoder(config.text));
  auto in_features = config.text.hidden_size;
  for (const auto out_features : config.dense_features) {
    dense->push_back(Dense(in_features, out_features));
    in_features = out_features;
  }
  register_module("dense", dense);
  share_use_lock();
}

void EmbeddingGemmaImpl::check(const std::vector<TokenIds>& texts) const {
  const auto most = config_.text.max_position_embeddings;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty() || std::ssize(texts[i]) > most) {
      throw std::invalid_argument(fmt::format(
          "EmbeddingGemma: text {} has {} tokens, but must have 1 to {}; cut it, or set truncate",
          i, texts[i].size(), most));
    }
    const auto rows = config_.text.vocab_size;
    const auto bad =
        std::ranges::find_if(texts[i], [&](int64_t id) { return id < 0 || id >= rows; });
    if (bad != texts[i].end()) {
      throw std::invalid_argument(fmt::format(
          "EmbeddingGemma: text {} has the token id {}, but ids are 0 to {}", i, *bad, rows - 1));
    }
  }
}

torch::Tensor EmbeddingGemmaImpl::embed_together(std::span<const TokenIds> texts,
                                                 const LayerCallback& on_layer) {
  const auto hidden = encoder->forward(texts, on_layer);
  std::vector<at::Tensor> means;
  int64_t row = 0;
  for (const auto& ids : texts) {
    const auto count = std::ssize(ids);
    means.push_back(hidden.narrow(0, row, count).sum(0) / count);
    row += count;
  }
  auto x = at::stack(means);
  for (size_t i = 0; i < dense->size(); ++i) x = dense->at<DenseImpl>(i).forward(x);
  return normalized(x.to(at::kFloat));
}

torch::Tensor EmbeddingGemmaImpl::forward(const std::vector<TokenIds>& texts,
                                          const LayerCallback& on_layer) {
  check(texts);
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  std::vector<at::Tensor> parts{at::empty(
      {0, config_.dim()}, at::TensorOptions().device(encoder->embedder->weight.device()))};
  // The products of exact numerics may depend on how many rows there are.
  const auto together = numerics() == Numerics::kExact ? 0 : kTokensTogether;
  for (size_t first = 0, next = 0; first < texts.size(); first = next) {
    int64_t tokens = 0;
    while (next < texts.size() && (next == first || tokens + std::ssize(texts[next]) <= together)) {
      tokens += std::ssize(texts[next++]);
    }
    parts.push_back(embed_together(std::span(texts).subspan(first, next - first), on_layer));
  }
  return at::cat(parts);
}

std::vector<int64_t> EmbeddingGemmaImpl::encode(const std::string& text,
                                                const EmbedOptions& options) const {
  const auto& name = options.prompt_name ? options.prompt_name : config_.default_prompt_name;
  std::string prompt;
  if (name) {
    const auto found = config_.prompts.find(*name);
    if (found == config_.prompts.end()) {
      std::vector<std::string_view> names;
      for (const auto& [known, _] : config_.prompts) names.push_back(known);
      throw std::invalid_argument(
          fmt::format("EmbeddingGemma: prompt_name is '{}', but must be {}", *name,
                      names.empty() ? "none: the model has no prompts"
                                    : fmt::format("one of {}", fmt::join(names, ", "))));
    }
    prompt = found->second;
  }
  auto ids = tokenizer().encode(prompt + text, /*bos=*/true, /*eos=*/true);
  const auto most = static_cast<size_t>(config_.text.max_position_embeddings);
  if (options.truncate && ids.size() > most) {
    ids.resize(most);
    ids.back() = tokenizer().eos_id();
  }
  return ids;
}

torch::Tensor EmbeddingGemmaImpl::cut(const torch::Tensor& embeddings,
                                      std::optional<int64_t> dim) const {
  if (!dim || *dim == config_.dim()) return embeddings;
  return normalized(embeddings.narrow(-1, 0, *dim));
}

torch::Tensor EmbeddingGemmaImpl::embed(const std::vector<std::string>& texts,
                                        const EmbedOptions& options) {
  const auto dim = options.dim.value_or(config_.dim());
  if (dim < 1 || dim > config_.dim()) {
    throw std::invalid_argument(
        fmt::format("EmbeddingGemma: dim is {}, but must be 1 to {}", dim, config_.dim()));
  }
  std::vector<TokenIds> ids;
  for (const auto& text : texts) ids.push_back(encode(text, options));
  return cut(forward(ids, options.on_layer), options.dim);
}

LoadReport EmbeddingGemmaImpl::load_weights(const std::filesystem::path& directory,
                                            const LoadOptions& options) {
  const UseLock::Change change(use_lock(), "load_weights");
  const auto folders = dense_folders(directory);
  if (folders.size() != dense->size()) {
    throw std::runtime_error(fmt::format("{}: has {} Dense modules, but the model {}",
                                         directory.string(), folders.size(), dense->size()));
  }
  struct Part {
    torch::nn::Module& module;
    std::string prefix;
    WeightSource source;
  };
  std::vector<Part> parts;
  parts.push_back({*encoder, "encoder.", WeightSource::open(directory)});
  for (size_t i = 0; i < folders.size(); ++i) {
    parts.push_back({*dense->ptr(i), fmt::format("dense.{}.", i), WeightSource::open(folders[i])});
  }
  for (const auto& [module, _, source] : parts) check_weights(module, source);
  LoadReport report;
  for (const auto& [module, prefix, source] : parts) {
    const auto part = gemma::load_weights(module, source, options);
    for (const auto& name : part.loaded) report.loaded.push_back(prefix + name);
    report.unexpected.insert(report.unexpected.end(), part.unexpected.begin(),
                             part.unexpected.end());
  }
  return report;
}

const Tokenizer& EmbeddingGemmaImpl::tokenizer() const {
  if (!tokenizer_) {
    throw std::logic_error(
        "EmbeddingGemma: no tokenizer; set config.text.tokenizer before constructing the model");
  }
  return *tokenizer_;
}

}  // namespace gemma
