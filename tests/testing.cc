#include "tests/testing.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/modules/masks.h>
#include <gemma/ops/rotary.h>

namespace gemma::testing {
namespace {

// One thread in every test: on tensors this small a second one only waits for the first.
class OneThread : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const kOneThread =
    ::testing::AddGlobalTestEnvironment(new OneThread);  // Owned by GoogleTest.

// A few roundings of the dtype.
double tolerance_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 1e-12;
    case at::kFloat:
    case at::kComplexFloat:
      return 1e-5;
    case at::kHalf:
      return 5e-3;
    case at::kBFloat16:
      return 4e-2;
    default:
      return 0;
  }
}

std::string sizes_text(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", "));
}

// In float64 on the CPU; complex numbers as pairs.
at::Tensor widened(const at::Tensor& tensor) {
  const auto real = tensor.is_complex() ? at::view_as_real(tensor.resolve_conj()) : tensor;
  return real.cpu().to(at::kDouble).contiguous();
}

// The index of a flat position, e.g. "[1, 0, 7]".
std::string index_text(int64_t flat, const at::Tensor& tensor) {
  std::vector<int64_t> index(static_cast<size_t>(tensor.dim()));
  for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
    index[static_cast<size_t>(d)] = flat % tensor.size(d);
    flat /= tensor.size(d);
  }
  return fmt::format("[{}]", fmt::join(index, ", "));
}

::testing::AssertionResult compare(const at::Tensor& got,
                                   const at::Tensor& want,
                                   double tolerance) {
  const auto a = widened(got);
  const auto b = widened(want);
  const auto difference = (a - b).abs();
  // Two infinities are equal although their difference is NaN; nothing equals NaN.
  const auto close = (a == b).logical_or(difference <= tolerance * (1 + b.abs()));
  const auto wrong = close.logical_not();
  if (!wrong.any().item<bool>()) return ::testing::AssertionSuccess();

  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  const auto sortable = at::nan_to_num(difference, kInfinity, kInfinity);
  const auto worst = at::where(wrong, sortable, -1.0).flatten().argmax().item<int64_t>();
  const auto value = [worst](const at::Tensor& x) { return x.flatten()[worst].item<double>(); };
  return ::testing::AssertionFailure() << fmt::format(
             "{} of {} values differ; largest difference {:.3g} at {} of {} {}: got {:.9g}, want "
             "{:.9g}, tolerance {:.3g}",
             wrong.sum().item<int64_t>(), wrong.numel(), value(difference), index_text(worst, a),
             c10::toString(got.scalar_type()), sizes_text(a), value(a), value(b),
             tolerance * (1 + std::abs(value(b))));
}

::testing::AssertionResult same_shape(const at::Tensor& got, const at::Tensor& want) {
  if (!got.defined() || !want.defined()) {
    return ::testing::AssertionFailure()
           << (got.defined() ? "wanted" : "got") << " an undefined tensor";
  }
  if (got.sizes() == want.sizes()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << fmt::format("got shape {}, want {}", sizes_text(got), sizes_text(want));
}

::testing::AssertionResult wrong_dtype(const at::Tensor& got, const at::Tensor& want) {
  return ::testing::AssertionFailure()
         << fmt::format("got {}, want {}", c10::toString(got.scalar_type()),
                        c10::toString(want.scalar_type()));
}

}  // namespace

::testing::AssertionResult tensors_equal(const at::Tensor& got, const at::Tensor& want) {
  if (auto same = same_shape(got, want); !same) return same;
  if (got.scalar_type() != want.scalar_type()) return wrong_dtype(got, want);
  return compare(got, want, /*tolerance=*/0);
}

::testing::AssertionResult tensors_close(const at::Tensor& got, const at::Tensor& want) {
  if (auto same = same_shape(got, want); !same) return same;
  if (got.scalar_type() != want.scalar_type() && want.scalar_type() != at::kDouble) {
    return wrong_dtype(got, want);
  }
  return compare(got, want, tolerance_of(got.scalar_type()));
}

::testing::AssertionResult near_to(const at::Tensor& got,
                                   const at::Tensor& want,
                                   double tolerance) {
  if (auto same = same_shape(got, want); !same) return same;
  const auto scale = want.abs().max().item<double>();
  const auto error = (got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>();
  if (error <= tolerance * scale) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "off by " << error << " where the largest is " << scale;
}

::testing::AssertionResult contains(std::string_view text, std::string_view part) {
  if (text.find(part) != std::string_view::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "got \"" << text << "\", without \"" << part << "\"";
}

std::filesystem::path data_path(std::string_view name) {
  auto directory = std::filesystem::current_path();
  while (!std::filesystem::exists(directory / "tests" / "data" / name)) {
    if (directory == directory.root_path()) {
      throw std::runtime_error(
          fmt::format("tests/data/{} is not above {}; run from within the source tree", name,
                      std::filesystem::current_path().string()));
    }
    directory = directory.parent_path();
  }
  return directory / "tests" / "data" / name;
}

std::string architecture_name(const ::testing::TestParamInfo<Architecture>& row) {
  return std::string(to_string(row.param));
}

GemmaConfig tiny_config(Architecture architecture) {
  constexpr auto kLocal = AttentionType::kLocalSliding;
  constexpr auto kGlobal = AttentionType::kGlobal;
  GemmaConfig config{.architecture = architecture,
                     .vocab_size = 451,
                     .max_position_embeddings = 64,
                     .num_hidden_layers = 2,
                     .num_attention_heads = 3,
                     .num_key_value_heads = 1,
                     .hidden_size = 33,
                     .intermediate_size = 53,
                     .head_dim = 24,
                     .dtype = "float32",
                     .tokenizer = std::nullopt};
  if (architecture == Architecture::kGemma1) return config;
  config.sliding_window_size = 3;
  config.use_pre_ffw_norm = true;
  config.use_post_ffw_norm = true;
  if (architecture == Architecture::kGemma2) {
    config.num_hidden_layers = 3;
    config.attn_types = std::vector{kLocal, kGlobal};
    config.final_logit_softcapping = 3.0;
    config.attn_logit_softcapping = 2.0;
    config.query_pre_attn_scalar = 11;
  } else {
    config.num_hidden_layers = 7;
    config.attn_types = std::vector{kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal};
    config.rope_wave_length =
        std::map<AttentionType, int64_t>{{kLocal, 10'000}, {kGlobal, 1'000'000}};
    config.use_qk_norm = true;
  }
  return config;
}

at::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype) {
  const auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::TensorOptions().dtype(at::kFloat)).to(dtype);
}

at::Tensor random_ids(int64_t rows, int64_t length) {
  constexpr int64_t kVocabSize = 451;
  const auto noise = random_tensor({rows, length}, /*seed=*/5);
  return (noise.abs() * 1000).to(at::kLong).remainder(kVocabSize);
}

void randomize(torch::nn::Module& module, uint64_t seed) {
  const auto generator = at::detail::createCPUGenerator(seed);
  const auto floats = at::TensorOptions().dtype(at::kFloat);
  for (const auto& item : module.named_parameters()) {
    const auto& parameter = item.value();
    const auto sizes = parameter.sizes();
    if (parameter.scalar_type() == at::kChar) {
      parameter.copy_(at::randint(-127, 128, sizes, generator, floats));
    } else if (item.key().ends_with("weight_scaler")) {
      parameter.copy_((at::rand(sizes, generator, floats) + 0.5) / 400);
    } else {
      parameter.copy_(at::randn(sizes, generator, floats) * 0.3);
    }
  }
}

std::vector<std::string> parameter_names(const torch::nn::Module& module) {
  return module.named_parameters().keys();
}

LayerInputs layer_inputs(const GemmaConfig& config,
                         AttentionType attn_type,
                         int64_t batch_size,
                         int64_t length,
                         at::ScalarType dtype) {
  const auto theta = config.rope_wave_length ? config.rope_wave_length->at(attn_type) : 10'000;
  const auto positions = at::arange(length);
  const auto zeros = [&] {
    return at::zeros({batch_size, length, config.num_key_value_heads, config.head_dim}, dtype);
  };
  LayerInputs inputs{
      .freqs_cis = precompute_freqs_cis(config.head_dim, length, static_cast<double>(theta)),
      .positions = positions,
      .cache = {zeros(), zeros()},
      .mask = causal_mask(positions, length),
      .local_mask = std::nullopt};
  if (config.sliding_window_size) {
    inputs.local_mask = sliding_window_mask(positions, length, *config.sliding_window_size);
  }
  return inputs;
}

std::vector<at::Tensor> logits_by_pieces(GemmaForCausalLM model,
                                         const at::Tensor& ids,
                                         const std::vector<int64_t>& pieces) {
  const auto device = model->embedder->weight.device();
  const auto batch_size = ids.size(0);
  const auto length = ids.size(1);
  const auto window = model->config().sliding_window_size;
  const auto longs = at::TensorOptions().dtype(at::kLong).device(device);
  const auto caches = model->make_kv_caches(batch_size, length, device);
  std::vector<at::Tensor> logits;
  int64_t begin = 0;
  for (const auto piece : pieces) {
    const auto positions = at::arange(begin, begin + piece, longs);
    const auto local_mask =
        window ? std::optional(sliding_window_mask(positions, length, *window)) : std::nullopt;
    logits.push_back(model
                         ->forward(ids.narrow(1, begin, piece).to(device), positions, std::nullopt,
                                   caches, causal_mask(positions, length),
                                   /*output_positions=*/at::full({1}, piece - 1, longs),
                                   /*temperatures=*/std::nullopt,
                                   /*top_ps=*/at::ones({batch_size}, longs.dtype(at::kFloat)),
                                   /*top_ks=*/at::ones({batch_size}, longs), local_mask)
                         .second);
    begin += piece;
  }
  return logits;
}

namespace oracle {
namespace {

at::Tensor linear(const Weights& weights, const std::string& name, const at::Tensor& x) {
  return at::matmul(x, weights.at(name + ".weight").t());
}

at::Tensor norm(const Weights& weights,
                const std::string& name,
                const GemmaConfig& config,
                const at::Tensor& x) {
  return rms_norm(x, weights.at(name + ".weight"), config.rms_norm_eps);
}

at::Tensor capped(const at::Tensor& x, const std::optional<double>& cap) {
  return cap ? *cap * at::tanh(x / *cap) : x;
}

double theta_of(const GemmaConfig& config, AttentionType attn_type) {
  if (!config.rope_wave_length) return 10'000;
  return static_cast<double>(config.rope_wave_length->at(attn_type));
}

// 0 where position i sees position j, else minus infinity; [L, L].
at::Tensor visibility(int64_t length, std::optional<int64_t> window) {
  std::vector<double> mask;
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j < length; ++j) {
      const bool seen = j <= i && (!window || i - j < *window);
      mask.push_back(seen ? 0 : -std::numeric_limits<double>::infinity());
    }
  }
  return at::tensor(mask, at::kDouble).view({length, length});
}

}  // namespace

Weights weights_of(const torch::nn::Module& module) {
  const auto parameters = module.named_parameters();
  Weights weights;
  for (const auto& item : parameters) {
    auto value = item.value().cpu().to(at::kDouble);
    if (const auto* scaler = parameters.find(item.key() + "_scaler")) {
      value = value * scaler->cpu().to(at::kDouble).unsqueeze(1);
    }
    weights[item.key()] = value;
  }
  return weights;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto mean_square = (x * x).sum(/*dim=*/-1, /*keepdim=*/true) / x.size(-1);
  return x / at::sqrt(mean_square + eps) * (1 + weight);
}

at::Tensor rope(const at::Tensor& x, double theta) {
  const auto length = x.size(1);
  const auto half = x.size(3) / 2;
  std::vector<double> angles;
  for (int64_t position = 0; position < length; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(half);
      angles.push_back(static_cast<double>(position) * std::pow(theta, -share));
    }
  }
  const auto angle = at::tensor(angles, at::kDouble).view({length, 1, half});
  const auto a = x.narrow(3, 0, half);
  const auto b = x.narrow(3, half, half);
  return at::cat({a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()}, 3);
}

at::Tensor mlp(const Weights& weights, const std::string& prefix, const at::Tensor& x) {
  const auto gate = linear(weights, prefix + "gate_proj", x);
  const auto cubic = gate + 0.044715 * gate * gate * gate;
  const auto gelu = 0.5 * gate * (1 + at::tanh(std::sqrt(2 / std::acos(-1.0)) * cubic));
  return linear(weights, prefix + "down_proj", gelu * linear(weights, prefix + "up_proj", x));
}

at::Tensor attention(const Weights& weights,
                     const std::string& prefix,
                     const GemmaConfig& config,
                     AttentionType attn_type,
                     const at::Tensor& x) {
  const auto heads = config.num_attention_heads;
  const auto kv_heads = config.num_key_value_heads;
  const auto length = x.size(1);
  const auto qkv =
      linear(weights, prefix + "qkv_proj", x).view({x.size(0), length, -1, config.head_dim});
  auto q = qkv.narrow(2, 0, heads);
  auto k = qkv.narrow(2, heads, kv_heads);
  const auto v = qkv.narrow(2, heads + kv_heads, kv_heads);
  if (config.use_qk_norm) {
    q = norm(weights, prefix + "query_norm", config, q);
    k = norm(weights, prefix + "key_norm", config, k);
  }
  q = rope(q, theta_of(config, attn_type));
  k = rope(k, theta_of(config, attn_type));

  const auto scale =
      std::sqrt(static_cast<double>(config.query_pre_attn_scalar.value_or(config.head_dim)));
  const auto mask =
      visibility(length, attn_type == AttentionType::kLocalSliding ? config.sliding_window_size
                                                                   : std::nullopt);
  std::vector<at::Tensor> outputs;
  for (int64_t h = 0; h < heads; ++h) {
    const auto kv = h * kv_heads / heads;
    const auto scores = at::matmul(q.select(2, h), k.select(2, kv).transpose(1, 2)) / scale;
    const auto probs = at::softmax(capped(scores, config.attn_logit_softcapping) + mask, -1);
    outputs.push_back(at::matmul(probs, v.select(2, kv)));
  }
  return linear(weights, prefix + "o_proj", at::cat(outputs, /*dim=*/-1));
}

at::Tensor decoder_layer(const Weights& weights,
                         const std::string& prefix,
                         const GemmaConfig& config,
                         AttentionType attn_type,
                         const at::Tensor& x) {
  const auto normed = [&](const std::string& name, const at::Tensor& input) {
    return norm(weights, prefix + name, config, input);
  };
  const auto attended =
      attention(weights, prefix + "self_attn.", config, attn_type, normed("input_layernorm", x));
  if (config.architecture == Architecture::kGemma1) {
    const auto y = x + attended;
    return y + mlp(weights, prefix + "mlp.", normed("post_attention_layernorm", y));
  }
  const auto y = x + normed("post_attention_layernorm", attended);
  const auto fed = mlp(weights, prefix + "mlp.",
                       config.use_pre_ffw_norm ? normed("pre_feedforward_layernorm", y) : y);
  return y + (config.use_post_ffw_norm ? normed("post_feedforward_layernorm", fed) : fed);
}

at::Tensor model(const Weights& weights,
                 const std::string& prefix,
                 const GemmaConfig& config,
                 const at::Tensor& x) {
  auto hidden = x;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const auto attn_type =
        config.attn_types ? (*config.attn_types)[static_cast<size_t>(i) % config.attn_types->size()]
                          : AttentionType::kGlobal;
    hidden =
        decoder_layer(weights, fmt::format("{}layers.{}.", prefix, i), config, attn_type, hidden);
  }
  return norm(weights, prefix + "norm", config, hidden);
}

at::Tensor logits(const Weights& weights, const GemmaConfig& config, const at::Tensor& ids) {
  const auto& table = weights.at("embedder.weight");
  const auto embedded = table.index_select(0, ids.flatten()).view({ids.size(0), ids.size(1), -1});
  const auto hidden = model(weights, "model.", config,
                            embedded * std::sqrt(static_cast<double>(config.hidden_size)));
  return capped(at::matmul(hidden, table.t()), config.final_logit_softcapping);
}

}  // namespace oracle
}  // namespace gemma::testing
