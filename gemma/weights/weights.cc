#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/config.h>
#include <gemma/config/dtype_name.h>
#include <gemma/modules/module.h>
#include <gemma/modules/weight_matrix.h>
#include <gemma/ops/weight_view.h>
#include <gemma/weights/copy_weight.h>
#include <gemma/weights/family.h>
#include <gemma/weights/unexpected.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

// A parameter and what it is going to hold.
struct Assignment {
  torch::Tensor parameter, value;
  WeightMatrix* matrix = nullptr;                       // Whose weight it is, if it is such.
  std::shared_ptr<const BlockLayout> blocks = nullptr;  // Of the value, if it is in blocks.
};

// The modules that are a matrix, by the names of their weights.
using Matrices = std::unordered_map<std::string, WeightMatrix*>;

Matrices matrices_of(const torch::nn::Module& module) {
  Matrices matrices;
  for (const auto& item : module.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
    if (auto* const matrix = dynamic_cast<WeightMatrix*>(item.value().get())) {
      matrices.emplace(item.key() + ".weight", matrix);
    }
  }
  return matrices;
}

WeightMatrix* find(const Matrices& matrices, const std::string& name) {
  const auto found = matrices.find(name);
  return found == matrices.end() ? nullptr : found->second;
}

// The weights with their own shapes where they are in blocks.
StateDict wanted(StateDict weights, const Matrices& matrices) {
  for (auto& [name, weight] : weights) {
    const auto* const matrix = find(matrices, name);
    if (matrix == nullptr || !matrix->blocks) continue;
    const std::vector<int64_t> sizes = {matrix->rows(), matrix->columns()};
    const auto options = matrix->weight.options().dtype(matrix->dtype());
    weight = weight.is_cpu() ? uninitialized(sizes, matrix->dtype()) : at::empty(sizes, options);
  }
  return weights;
}

void append_state(StateDict& out, const torch::nn::Module& module, const std::string& prefix) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    out.emplace_back(prefix + item.key(), item.value());
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    out.emplace_back(prefix + item.key(), item.value());
  }
  for (const auto& child : module.named_children()) {
    append_state(out, *child.value(), prefix + child.key() + ".");
  }
}

// What most likely went wrong when a checkpoint lacks weights.
std::string cure_for_missing(const WeightSource& source) {
  if (source.contains("text_token_embedder.weight")) {
    return "this is a multimodal checkpoint, which a Gemma3ForMultimodalLM of its variant holds";
  }
  if (family_of(source) == Family::kRecurrentGemma) {
    return "it is a RecurrentGemma of another config than the model's: take the file's own, with "
           "from_pretrained";
  }
  const auto detected = detect_variant(source);
  if (detected) {
    return fmt::format("the file is of variant '{}'{}", detected->variant,
                       detected->quant ? ", quantised" : "");
  }
  if (!source.contains("embedder.weight")) return why_unknown(source);
  return fmt::format("was the file made for another variant? Variants: {}",
                     fmt::join(model_variants(), ", "));
}

bool is_weight_dtype(torch::Dtype dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf ||
         dtype == at::kDouble;
}

void check_kind(const WeightSource& source,
                const std::string& name,
                torch::Dtype got,
                torch::Dtype want) {
  const bool got_int8 = got == at::kChar;
  if (got_int8 == (want == at::kChar) && (got_int8 || is_weight_dtype(got))) return;
  const auto cure =
      got_int8 ? "set quant in the config (--quant)"
               : (want == at::kChar
                      ? "leave quant unset: the file is not quantised"
                      : "weights are float32, bfloat16, float16 or float64, so convert it first");
  refuse_file(source.file_of(name), fmt::format("tensor '{}' is {}, but the model's is {}; {}",
                                                name, dtype_name(got), dtype_name(want), cure));
}

bool is_quantized(torch::Dtype dtype) { return dtype == at::kChar || dtype == at::kByte; }

// The shape of a matrix: 4-bit weights have two numbers in a byte.
std::vector<int64_t> matrix_sizes(at::IntArrayRef sizes, torch::Dtype dtype) {
  auto result = sizes.vec();
  if (dtype == at::kByte && !result.empty()) result.back() *= 2;
  return result;
}

// The weight that `name` holds the scales of; nullptr if none.
const TensorEntry* scaled_by(const WeightSource& source, const std::string& name) {
  constexpr std::string_view kSuffix = "_scaler";
  if (!name.ends_with(kSuffix)) return nullptr;
  return source.find(name.substr(0, name.size() - kSuffix.size()));
}

// Whether model and file both hold an integer weight, or its scales, one of them in 4 bits: then
// the parameter takes the file's form. `want` is the parameter.
bool fits_in_bits(const WeightSource& source, const TensorEntry& entry, const at::Tensor& want) {
  if (is_quantized(entry.dtype)) {
    return is_quantized(want.scalar_type()) &&
           matrix_sizes(entry.sizes, entry.dtype) == matrix_sizes(want.sizes(), want.scalar_type());
  }
  const auto* weight = scaled_by(source, entry.name);
  if (weight == nullptr || weight->sizes.size() != 2 || !is_quantized(weight->dtype)) return false;
  auto sizes = matrix_sizes(weight->sizes, weight->dtype);
  if (weight->dtype == at::kChar) return want.dim() == 2 && entry.sizes == std::vector{sizes[0]};
  sizes[1] /= WeightView::kGroup;
  return entry.dtype == at::kHalf && entry.sizes == sizes && want.size(0) == sizes[0];
}

void check_fits(const WeightSource& source, const TensorEntry& entry, const at::Tensor& want) {
  if (fits_in_bits(source, entry, want)) return;
  check_kind(source, entry.name, entry.dtype, want.scalar_type());
  if (want.sizes() == at::IntArrayRef(entry.sizes)) return;
  refuse_file(source.file_of(entry.name),
              fmt::format("tensor '{}' is [{}], but the model's is [{}]; {}", entry.name,
                          fmt::join(entry.sizes, ", "), fmt::join(want.sizes().vec(), ", "),
                          cure_for_missing(source)));
}

// Names that the model does not have.
std::vector<std::string> unexpected_names(const WeightSource& source, const StateDict& weights) {
  std::unordered_set<std::string_view> known;
  for (const auto& [name, _] : weights) known.insert(name);
  std::vector<std::string> names;
  for (const auto& entry : source.entries()) {
    if (!known.contains(entry.name) && !is_rope_table(entry.name)) names.push_back(entry.name);
  }
  return names;
}

// Throws unless the file holds exactly the model, but for tensors that change nothing.
LoadReport compare(const WeightSource& source, const StateDict& weights) {
  LoadReport report;
  const auto unexpected = unexpected_names(source, weights);
  refuse_changes(source, weights, unexpected, InsteadOfWeights::kYes);
  for (const auto& [name, parameter] : weights) {
    if (const auto* entry = source.find(name)) {
      check_fits(source, *entry, parameter);
    } else {
      report.missing.push_back(name);
    }
  }
  if (!report.missing.empty()) {
    refuse_file(source.path(),
                fmt::format("no tensor {}; {}", some_of(report.missing), cure_for_missing(source)));
  }
  refuse_changes(source, weights, unexpected, InsteadOfWeights::kNo);
  for (const auto& name : unexpected) report.unexpected.push_back(source.name_in_file(name));
  return report;
}

// What the parameter is going to hold: the file's own bytes if that is allowed and possible.
at::Tensor converted(const WeightSource& source,
                     const TensorEntry& entry,
                     const at::Tensor& parameter,
                     bool mmap) {
  const auto dtype = fits_in_bits(source, entry, parameter) ? entry.dtype : parameter.scalar_type();
  if (entry.encoding == Encoding::kPlain && dtype == entry.dtype && parameter.is_cpu() &&
      (mmap || !source.is_view(entry.name))) {
    return source.tensor(entry.name);
  }
  auto target = parameter.is_cpu() ? uninitialized(entry.sizes, dtype)
                                   : at::empty(entry.sizes, parameter.options().dtype(dtype));
  copy_weight(source, entry, target);
  return target;
}

// The same in the file's blocks, if it has some that the module can hold.
std::optional<Assignment> kept_blocks(const WeightSource& source,
                                      const std::string& name,
                                      const at::Tensor& want,
                                      WeightMatrix* matrix,
                                      bool mmap) {
  if (matrix == nullptr || !matrix->weight.is_cpu() || !is_weight_dtype(want.scalar_type())) {
    return std::nullopt;
  }
  auto blocks = source.blocks(name);
  if (!blocks) return std::nullopt;
  blocks->layout.dtype = want.scalar_type();
  return Assignment{.parameter = matrix->weight,
                    .value = mmap ? blocks->bytes : blocks->bytes.clone(),
                    .matrix = matrix,
                    .blocks = std::make_shared<const BlockLayout>(std::move(blocks->layout))};
}

void commit(const std::vector<Assignment>& assignments, torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (const auto& [parameter, value, matrix, blocks] : assignments) {
    parameter.set_data(value);
    if (matrix != nullptr) matrix->blocks = blocks;
  }
  if (auto* const ours = dynamic_cast<Module*>(&module)) ours->arrange_weights();
}

// Waits until no thread computes with the module, if it is one of ours.
std::unique_ptr<UseLock::Change> change_of(const torch::nn::Module& module, const char* who) {
  const auto* const ours = dynamic_cast<const Module*>(&module);
  return ours ? std::make_unique<UseLock::Change>(ours->use_lock(), who) : nullptr;
}

std::string sizes_text(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", "));
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict out;
  append_state(out, module, "");
  return out;
}

StateDict weights_of(const torch::nn::Module& module) {
  auto weights = state_dict(module);
  std::erase_if(weights, [](const auto& item) { return is_rope_table(item.first); });
  return weights;
}

bool is_rope_table(std::string_view name) {
  return name.ends_with("freqs_cis") || name.ends_with("inv_freq");
}

void check_weights(const torch::nn::Module& module, const WeightSource& source) {
  compare(source, wanted(weights_of(module), matrices_of(module)));
  source.check_complete();
}

LoadReport load_weights(torch::nn::Module& module,
                        const WeightSource& source,
                        const LoadOptions& options) {
  const torch::NoGradGuard no_grad;
  const auto change = change_of(module, "load_weights");
  const auto matrices = matrices_of(module);
  const auto weights = weights_of(module);
  const auto wants = wanted(weights, matrices);
  auto report = compare(source, wants);
  source.check_complete();
  LoadProgress state{.tensor = {},
                     .tensors_done = 0,
                     .tensors_total = static_cast<int64_t>(weights.size()),
                     .bytes_done = 0,
                     .bytes_total = 0};
  for (const auto& [name, _] : weights) {
    state.bytes_total += static_cast<int64_t>(source.find(name)->nbytes);
  }
  std::vector<Assignment> assignments;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto& [name, want] = wants[i];
    const auto& entry = *source.find(name);
    auto* const matrix = find(matrices, name);
    auto kept =
        options.keep_blocks ? kept_blocks(source, name, want, matrix, options.mmap) : std::nullopt;
    assignments.push_back(kept ? *std::move(kept)
                               : Assignment{.parameter = weights[i].second,
                                            .value = converted(source, entry, want, options.mmap),
                                            .matrix = matrix});
    report.loaded.push_back(name);
    state.tensor = name;
    ++state.tensors_done;
    state.bytes_done += static_cast<int64_t>(entry.nbytes);
    if (options.progress) options.progress(state);
  }
  commit(assignments, module);
  return report;
}

LoadReport load_state_dict(torch::nn::Module& module,
                           const StateDict& tensors,
                           bool strict,
                           bool assign) {
  const torch::NoGradGuard no_grad;
  const auto change = change_of(module, "load_state_dict");
  std::unordered_map<std::string_view, torch::Tensor> given;
  for (const auto& [name, tensor] : tensors) given.insert_or_assign(name, tensor);

  LoadReport report;
  std::vector<Assignment> assignments;
  for (const auto& [name, parameter] : weights_of(module)) {
    const auto found = given.find(name);
    if (found == given.end()) {
      report.missing.push_back(name);
      continue;
    }
    if (found->second.sizes() != parameter.sizes()) {
      throw std::runtime_error(fmt::format(
          "load_state_dict: '{}' is {}, but the model's is {}; was it made for another config?",
          name, sizes_text(found->second), sizes_text(parameter)));
    }
    report.loaded.push_back(name);
    assignments.push_back({.parameter = parameter, .value = found->second});
    given.erase(found);
  }
  for (const auto& [name, _] : tensors) {
    if (given.contains(name) && !is_rope_table(name)) report.unexpected.push_back(name);
  }
  if (strict && !(report.missing.empty() && report.unexpected.empty())) {
    throw std::runtime_error(fmt::format(
        "load_state_dict: missing {}, unexpected {}; pass strict=False to load the rest",
        report.missing.empty() ? "none" : some_of(report.missing),
        report.unexpected.empty() ? "none" : some_of(report.unexpected)));
  }
  if (assign) {
    commit(assignments, module);
  } else {
    for (const auto& assignment : assignments) assignment.parameter.copy_(assignment.value);
  }
  return report;
}

std::string describe_unexpected(const LoadReport& report) {
  if (report.unexpected.empty()) return {};
  return fmt::format("left out {} that the model has no place for: {}",
                     report.unexpected.size() == 1
                         ? "a tensor"
                         : fmt::format("{} tensors", report.unexpected.size()),
                     some_of(report.unexpected));
}

std::string why_unknown(const WeightSource& source) {
  const bool is_gemma =
      source.contains("embedder.weight") || source.contains("text_token_embedder.weight");
  if (is_gemma) return "its shapes fit no variant";
  std::vector<std::string> names;
  for (const auto& entry : source.entries())
    names.push_back(printable(source.name_in_file(entry.name)));
  return fmt::format("it does not hold the weights of a Gemma: its tensors are {}", some_of(names));
}

std::optional<DetectedVariant> detect_variant(const WeightSource& source) {
  const auto has = [&](const std::string& name, const std::vector<int64_t>& sizes) {
    const auto* entry = source.find(name);
    return entry != nullptr && matrix_sizes(entry->sizes, entry->dtype) == sizes;
  };
  const std::string layer = "model.layers.{}.input_layernorm.weight";
  for (const auto& variant : model_variants()) {
    const auto config = get_model_config(variant);
    const auto embedder = config.vision_config ? "text_token_embedder.weight" : "embedder.weight";
    const auto qkv_rows =
        (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
    if (has(embedder, {config.vocab_size, config.hidden_size}) &&
        has("model.layers.0.self_attn.qkv_proj.weight", {qkv_rows, config.hidden_size}) &&
        has("model.layers.0.mlp.gate_proj.weight",
            {config.intermediate_size, config.hidden_size}) &&
        source.contains("model.norm.weight") &&
        source.contains(fmt::format(fmt::runtime(layer), config.num_hidden_layers - 1)) &&
        !source.contains(fmt::format(fmt::runtime(layer), config.num_hidden_layers))) {
      return DetectedVariant{variant, source.find(embedder)->dtype == at::kChar};
    }
  }
  return std::nullopt;
}

}  // namespace gemma
