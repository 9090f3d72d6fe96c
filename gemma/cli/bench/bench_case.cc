#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <gemma/cli/bench/bench_case.h>
#include <gemma/engine/model_runner.h>
#include <gemma/models/language_model.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/row_sampling.h>
#include <gemma/ops/sampling_params.h>

namespace gemma::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<int64_t> random_tokens(int64_t count, int64_t vocab_size) {
  std::mt19937_64 random(static_cast<uint64_t>(count));
  std::uniform_int_distribution<int64_t> token(0, vocab_size - 1);
  std::vector<int64_t> tokens(static_cast<size_t>(count));
  for (auto& id : tokens) id = token(random);
  return tokens;
}

// Those of `gemma run`, or greedy.
SamplingParams sampling_params(bool sampled, torch::Device device) {
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(device);
  SamplingParams params{.temperatures = {},
                        .top_ps = at::full({1}, 0.95, floats),
                        .top_ks = at::full({1}, 64, floats.dtype(at::kLong))};
  if (sampled) params.temperatures = at::full({1}, 1.0, floats);
  return params;
}

// Of each text: those of `gemma run`, or greedy.
SamplingRules sampling_rules(bool sampled) {
  return {.temperature = sampled ? 1.0 : 0.0, .top_p = 0.95, .top_k = 64};
}

class FastCase {
 public:
  FastCase(const BenchCase& test, const EngineModel& model, torch::Dtype kv_dtype)
      : test_(test),
        model_(model),
        // One more, for the block that each fork copies.
        runner_(model,
                {.kv_dtype = kv_dtype,
                 .max_batch = test.batch + 1,
                 .positions = test.depth + test.tokens}),
        filled_(runner_.make_sequence()),
        rules_(sampling_rules(test.is_sampled())),
        tokens_(random_tokens(test.is_prefill() ? test.tokens : 1, model->vocab_size())) {
    for (int64_t i = 0; i < test.batch; ++i) {
      sampling_.push_back({.rules = &rules_,
                           .generator = at::detail::createCPUGenerator(static_cast<uint64_t>(i))});
    }
    if (test.depth == 0) return;
    const auto before = random_tokens(test.depth, model->vocab_size());
    const ModelRunner::Feed feed{&filled_, before};
    runner_.prompt({&feed, 1});
  }

  BenchRun operator()() {
    std::vector<Sequence> sequences;
    for (int64_t i = 0; i < test_.batch; ++i) sequences.push_back(filled_.fork());
    const auto start = Clock::now();
    if (test_.is_prefill()) {
      const ModelRunner::Feed feed{sequences.data(), tokens_};
      sample(runner_.prompt({&feed, 1}));
      return {seconds_since(start), kv_bytes()};
    }
    std::vector<ModelRunner::Next> nexts;
    for (auto& sequence : sequences) nexts.push_back({&sequence, tokens_.front()});
    for (int64_t i = 0; i < test_.tokens; ++i) {
      const auto tokens = sample(runner_.decode(nexts));
      for (size_t row = 0; row < nexts.size(); ++row) nexts[row].token = tokens[row].token;
    }
    return {seconds_since(start), kv_bytes()};
  }

 private:
  std::vector<SampledToken> sample(const at::Tensor& hidden) {
    logits_ = model_->logits(hidden, logits_);
    return sample_rows(logits_, model_->logits_softcap(), sampling_);
  }

  int64_t kv_bytes() const { return runner_.store()->bytes() - runner_.store()->bytes_free(); }

  BenchCase test_;
  EngineModel model_;
  ModelRunner runner_;
  Sequence filled_;
  SamplingRules rules_;
  std::vector<SamplingRow> sampling_;
  at::Tensor logits_;
  std::vector<int64_t> tokens_;
};

class ExactCase {
 public:
  ExactCase(const BenchCase& test, const LanguageModel& model)
      : test_(test),
        model_(model),
        device_(model->embedder->weight.device()),
        length_(test.depth + test.tokens),
        // What is in a cache does not matter to the time: the mask is added to all of it.
        caches_(model->make_kv_caches(1, length_, device_)),
        params_(sampling_params(test.is_sampled(), device_)),
        tokens_(at::tensor(
                    random_tokens(test.is_prefill() ? test.tokens : 1, model->config().vocab_size),
                    at::kLong)
                    .unsqueeze(0)
                    .to(device_)) {}

  BenchRun operator()() {
    const auto start = Clock::now();
    auto token = next(tokens_, test_.depth);
    if (!test_.is_prefill()) {
      for (int64_t i = 1; i < test_.tokens; ++i) {
        token = next(token.reshape({1, 1}), test_.depth + i);
      }
    }
    token.item<int64_t>();  // Waits for a GPU.
    return {seconds_since(start)};
  }

 private:
  at::Tensor next(const at::Tensor& tokens, int64_t position) {
    const auto longs = tokens.options();
    const auto positions = at::arange(position, position + tokens.size(1), longs);
    const auto window = model_->config().sliding_window_size;
    const auto local_mask =
        window ? std::optional(sliding_window_mask(positions, length_, *window)) : std::nullopt;
    const auto hidden = model_->hidden_states(model_->embed(tokens), positions, caches_,
                                              causal_mask(positions, length_), local_mask);
    return model_
        ->sampler(model_->embedder->view(), hidden, at::full({1}, tokens.size(1) - 1, longs),
                  params_.temperatures, params_.top_ps, params_.top_ks)
        .first;
  }

  BenchCase test_;
  LanguageModel model_;
  torch::Device device_;
  int64_t length_;
  std::vector<KVCache> caches_;
  SamplingParams params_;
  at::Tensor tokens_;
};

}  // namespace

std::string BenchCase::name() const {
  return fmt::format("{}{}{}{}{}", is_prefill() ? "pp" : "tg", tokens,
                     is_sampled() ? " sampled" : "", is_batch() ? fmt::format(" x {}", batch) : "",
                     depth == 0 ? "" : fmt::format(" @ d{}", depth));
}

std::function<BenchRun()> prepare(const BenchCase& test,
                                  const EngineModel& model,
                                  torch::Dtype kv_dtype) {
  const auto most = model->max_positions();
  if (test.depth > most - test.tokens) {
    throw std::invalid_argument(
        fmt::format("bench: {} needs {} positions, but the model has {}; lower -d, -p or -n",
                    test.name(), test.depth + test.tokens, most));
  }
  if (model->numerics() == Numerics::kExact) {
    if (test.is_batch()) {
      throw std::invalid_argument("bench: -b needs --numerics fast: exact ones continue one text");
    }
    // A RecurrentGemma has fast numerics alone here (open_checkpoint).
    return ExactCase(test,
                     LanguageModel(std::dynamic_pointer_cast<LanguageModelImpl>(model.ptr())));
  }
  // std::function copies what it calls, which a Sequence does not allow.
  return [fast = std::make_shared<FastCase>(test, model, kv_dtype)] { return (*fast)(); };
}

}  // namespace gemma::cli
