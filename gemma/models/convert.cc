#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/models/convert.h>
#include <gemma/models/row_blocks.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

constexpr auto kMultimodalEmbedder = "text_token_embedder.weight";

std::string scaler_of(const std::string& weight) { return weight + "_scaler"; }

// What becomes of one tensor.
struct Step {
  const TensorEntry* entry;
  torch::Dtype dtype;  // Of the result, or of the scales when it is in 8 bits.
  std::optional<Quant> quant;
};

QuantizedWeight quantize(const torch::Tensor& weight, Quant quant) {
  return quant == Quant::kInt4 ? quantize_weight_int4(weight) : quantize_weight(weight);
}

// What a tensor is quantised to.
std::optional<Quant> quant_of(const TensorEntry& entry, std::optional<Quant> quant) {
  if (!quant || !is_quantized_weight(entry.name)) return std::nullopt;
  const bool fits = is_layer_weight(entry.name) && fits_int4(entry.sizes);
  return *quant == Quant::kInt4 && !fits ? Quant::kInt8 : *quant;
}

[[noreturn]] void refuse(std::string_view path, std::string_view what) {
  throw std::runtime_error(fmt::format("convert_weights: {}: {}", path, what));
}

void check_layout(const Checkpoint& checkpoint) {
  if (checkpoint.contains("embedder.weight") || checkpoint.contains(kMultimodalEmbedder)) return;
  refuse(checkpoint.path(),
         "has no tensor 'embedder.weight', so it is not laid out as gemma_pytorch's; files for "
         "Hugging Face transformers are not converted");
}

void check_not_quantized(const Checkpoint& checkpoint) {
  for (const auto& entry : checkpoint.entries()) {
    if (is_quantized_weight(entry.name) && (entry.dtype == at::kChar || entry.dtype == at::kByte ||
                                            checkpoint.contains(scaler_of(entry.name)))) {
      refuse(checkpoint.file_of(entry.name),
             fmt::format("tensor '{}' is quantised already; leave --quant away, or start from the "
                         "file that it was made from",
                         entry.name));
    }
  }
}

// converted_bytes relies on it, and the first megabytes are too late to find out.
void check_can_be_quantized(const Checkpoint& checkpoint, const TensorEntry& entry) {
  if (entry.sizes.size() == 2 && c10::isFloatingType(entry.dtype)) return;
  refuse(checkpoint.file_of(entry.name),
         fmt::format("tensor '{}' is {} [{}], but only a matrix of floats can be quantised; leave "
                     "--quant away",
                     entry.name, c10::toString(entry.dtype), fmt::join(entry.sizes, ", ")));
}

// The reference's script for multimodal models loads strictly, and wants the tables; everything
// else computes them.
bool is_left_out(const Checkpoint& checkpoint, const TensorEntry& entry) {
  return is_rope_table(entry.name) && !checkpoint.contains(kMultimodalEmbedder);
}

std::vector<Step> plan(const Checkpoint& checkpoint, const ConvertOptions& options) {
  check_layout(checkpoint);
  if (options.quant) check_not_quantized(checkpoint);
  std::vector<Step> steps;
  for (const auto& entry : checkpoint.entries()) {
    if (is_left_out(checkpoint, entry)) continue;
    const auto quant = quant_of(entry, options.quant);
    if (quant) check_can_be_quantized(checkpoint, entry);
    const auto float_dtype = options.dtype.value_or(entry.dtype);
    steps.push_back({.entry = &entry,
                     .dtype = c10::isFloatingType(entry.dtype) ? float_dtype : entry.dtype,
                     .quant = quant});
  }
  return steps;
}

torch::Tensor converted(const Checkpoint& checkpoint, const Step& step) {
  const auto source = checkpoint.tensor(step.entry->name);
  if (source.scalar_type() == step.dtype) return source;
  if (source.dim() == 0) return source.to(step.dtype);
  auto target = at::empty(source.sizes(), source.options().dtype(step.dtype));
  for_row_blocks(source, [&](int64_t first, int64_t count) {
    target.narrow(0, first, count).copy_(source.narrow(0, first, count));
    checkpoint.release(step.entry->name);
  });
  return target;
}

QuantizedWeight quantized(const Checkpoint& checkpoint, const Step& step) {
  const auto source = checkpoint.tensor(step.entry->name);
  std::vector<torch::Tensor> weights, scalers;
  for_row_blocks(source, [&](int64_t first, int64_t count) {
    auto block = quantize(source.narrow(0, first, count).to(step.dtype), *step.quant);
    weights.push_back(std::move(block.weight));
    scalers.push_back(std::move(block.weight_scaler));
    checkpoint.release(step.entry->name);
  });
  return {at::cat(weights), at::cat(scalers)};
}

void convert(const Checkpoint& checkpoint, const Step& step, const TensorSink& sink) {
  const auto& name = step.entry->name;
  if (!step.quant) {
    sink(name, converted(checkpoint, step));
    return;
  }
  const auto result = [&] {
    try {
      return quantized(checkpoint, step);
    } catch (const std::invalid_argument& error) {
      refuse(checkpoint.file_of(name), fmt::format("tensor '{}': {}", name, error.what()));
    }
  }();
  sink(name, result.weight);
  sink(scaler_of(name), result.weight_scaler);
}

}  // namespace

void convert_weights(const Checkpoint& checkpoint,
                     const ConvertOptions& options,
                     const TensorSink& sink,
                     const ProgressCallback& progress) {
  const torch::NoGradGuard no_grad;
  const auto steps = plan(checkpoint, options);
  LoadProgress state{.tensor = {},
                     .tensors_done = 0,
                     .tensors_total = static_cast<int64_t>(steps.size()),
                     .bytes_done = 0,
                     .bytes_total = 0};
  for (const auto& step : steps) state.bytes_total += static_cast<int64_t>(step.entry->nbytes);
  for (const auto& step : steps) {
    convert(checkpoint, step, sink);
    checkpoint.release(step.entry->name);
    state.tensor = step.entry->name;
    ++state.tensors_done;
    state.bytes_done += static_cast<int64_t>(step.entry->nbytes);
    if (progress) progress(state);
  }
}

int64_t converted_bytes(const Checkpoint& checkpoint, const ConvertOptions& options) {
  int64_t bytes = 0;
  for (const auto& step : plan(checkpoint, options)) {
    const auto elements = c10::multiply_integers(step.entry->sizes);
    const auto size = static_cast<int64_t>(c10::elementSize(step.dtype));
    if (!step.quant) {
      bytes += elements * size;
    } else if (*step.quant == Quant::kInt8) {
      bytes += elements + step.entry->sizes.front() * size;
    } else {
      bytes += elements / 2 + elements / Weight::kGroup * 2;
    }
  }
  return bytes;
}

}  // namespace gemma
