#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/cli/bench/bench_case.h>
#include <gemma/engine/model_runner.h>
#include <gemma/modules/masks.h>
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

class FastCase {
 public:
  FastCase(const BenchCase& test, const LanguageModel& model, torch::Dtype kv_dtype)
      : test_(test),
        model_(model),
        runner_(model,
                {.kv_dtype = kv_dtype, .max_batch = 2, .positions = test.depth + test.tokens}),
        filled_(runner_.make_sequence()),
        params_(sampling_params(test.is_sampled(), model->embedder->weight.device())),
        first_(at::zeros({1}, at::TensorOptions().dtype(at::kLong))),
        tokens_(random_tokens(test.is_prefill() ? test.tokens : 1, model->config().vocab_size)) {
    if (test.depth == 0) return;
    const auto before = random_tokens(test.depth, model->config().vocab_size);
    const ModelRunner::Feed feed{&filled_, before};
    runner_.prompt({&feed, 1});
  }

  double operator()() {
    auto sequence = filled_.fork();
    const auto start = Clock::now();
    if (test_.is_prefill()) {
      const ModelRunner::Feed feed{&sequence, tokens_};
      sample(runner_.prompt({&feed, 1}));
      return seconds_since(start);
    }
    auto token = tokens_.front();
    for (int64_t i = 0; i < test_.tokens; ++i) {
      const ModelRunner::Next next{&sequence, token};
      token = sample(runner_.decode({&next, 1}));
    }
    return seconds_since(start);
  }

 private:
  int64_t sample(const at::Tensor& hidden) {
    return model_
        ->sampler(model_->embedder->view(), hidden.unsqueeze(1), first_, params_.temperatures,
                  params_.top_ps, params_.top_ks)
        .first.item<int64_t>();
  }

  BenchCase test_;
  LanguageModel model_;
  ModelRunner runner_;
  Sequence filled_;
  SamplingParams params_;
  at::Tensor first_;
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

  double operator()() {
    const auto start = Clock::now();
    auto token = next(tokens_, test_.depth);
    if (!test_.is_prefill()) {
      for (int64_t i = 1; i < test_.tokens; ++i) {
        token = next(token.reshape({1, 1}), test_.depth + i);
      }
    }
    token.item<int64_t>();  // Waits for a GPU.
    return seconds_since(start);
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
  return fmt::format("{}{}{}{}", is_prefill() ? "pp" : "tg", tokens, is_sampled() ? " sampled" : "",
                     depth == 0 ? "" : fmt::format(" @ d{}", depth));
}

std::function<double()> prepare(const BenchCase& test,
                                const LanguageModel& model,
                                torch::Dtype kv_dtype) {
  const auto most = model->config().max_position_embeddings;
  if (test.depth > most - test.tokens) {
    throw std::invalid_argument(
        fmt::format("bench: {} needs {} positions, but the model has {}; lower -d, -p or -n",
                    test.name(), test.depth + test.tokens, most));
  }
  if (model->numerics() == Numerics::kExact) return ExactCase(test, model);
  // std::function copies what it calls, which a Sequence does not allow.
  return [fast = std::make_shared<FastCase>(test, model, kv_dtype)] { return (*fast)(); };
}

}  // namespace gemma::cli
