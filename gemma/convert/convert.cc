#include <stdexcept>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/dtype_name.h>
#include <gemma/convert/convert.h>
#include <gemma/ops/weight_view.h>
#include <gemma/weights/copy_weight.h>
#include <gemma/weights/row_blocks.h>

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

void check_layout(const WeightSource& source) {
  if (source.contains("embedder.weight") || source.contains(kMultimodalEmbedder)) return;
  refuse_file(
      source.path(),
      "has no tensor 'embedder.weight' and no other name for it: these are not the weights of a "
      "Gemma");
}

void check_not_quantized(const WeightSource& source) {
  for (const auto& entry : source.entries()) {
    if (is_quantized_weight(entry.name) && (entry.dtype == at::kChar || entry.dtype == at::kByte ||
                                            source.contains(scaler_of(entry.name)))) {
      refuse_file(
          source.file_of(entry.name),
          fmt::format("tensor '{}' is quantised already; leave --quant away, or start from the "
                      "file that it was made from",
                      entry.name));
    }
  }
}

// converted_bytes relies on it, and the first megabytes are too late to find out.
void check_can_be_quantized(const WeightSource& source, const TensorEntry& entry) {
  if (entry.sizes.size() == 2 && c10::isFloatingType(entry.dtype)) return;
  refuse_file(
      source.file_of(entry.name),
      fmt::format("tensor '{}' is {} [{}], but only a matrix of floats can be quantised; leave "
                  "--quant away",
                  entry.name, dtype_name(entry.dtype), fmt::join(entry.sizes, ", ")));
}

// The reference's script for multimodal models loads strictly, and wants the tables; everything
// else computes them.
bool is_left_out(const WeightSource& source, const TensorEntry& entry) {
  return is_rope_table(entry.name) && !source.contains(kMultimodalEmbedder);
}

std::vector<Step> plan(const WeightSource& source, const ConvertOptions& options) {
  check_layout(source);
  if (options.quant) check_not_quantized(source);
  std::vector<Step> steps;
  for (const auto& entry : source.entries()) {
    if (is_left_out(source, entry)) continue;
    const auto quant = quant_of(entry, options.quant);
    if (quant) check_can_be_quantized(source, entry);
    const auto float_dtype = options.dtype.value_or(entry.dtype);
    steps.push_back({.entry = &entry,
                     .dtype = c10::isFloatingType(entry.dtype) ? float_dtype : entry.dtype,
                     .quant = quant});
  }
  return steps;
}

torch::Tensor converted(const WeightSource& source, const Step& step) {
  if (step.entry->dtype == step.dtype) return source.tensor(step.entry->name);
  auto target = at::empty(step.entry->sizes, step.dtype);
  copy_weight(source, *step.entry, target);
  return target;
}

QuantizedWeight quantized(const WeightSource& source, const Step& step) {
  const auto tensor = source.tensor(step.entry->name);
  std::vector<torch::Tensor> weights, scalers;
  for_row_blocks(tensor, [&](int64_t first, int64_t count) {
    auto block = quantize(tensor.narrow(0, first, count).to(step.dtype), *step.quant);
    weights.push_back(std::move(block.weight));
    scalers.push_back(std::move(block.weight_scaler));
    source.release(step.entry->name);
  });
  return {at::cat(weights), at::cat(scalers)};
}

void convert(const WeightSource& source, const Step& step, const TensorSink& sink) {
  const auto& name = step.entry->name;
  if (!step.quant) {
    sink(name, converted(source, step));
    return;
  }
  const auto result = [&] {
    try {
      return quantized(source, step);
    } catch (const std::invalid_argument& error) {
      refuse_file(source.file_of(name), fmt::format("tensor '{}': {}", name, error.what()));
    }
  }();
  sink(name, result.weight);
  sink(scaler_of(name), result.weight_scaler);
}

}  // namespace

void convert_weights(const WeightSource& source,
                     const ConvertOptions& options,
                     const TensorSink& sink,
                     const ProgressCallback& progress) {
  const torch::NoGradGuard no_grad;
  const auto steps = plan(source, options);
  source.check_complete();
  LoadProgress state{.tensor = {},
                     .tensors_done = 0,
                     .tensors_total = static_cast<int64_t>(steps.size()),
                     .bytes_done = 0,
                     .bytes_total = 0};
  for (const auto& step : steps) state.bytes_total += static_cast<int64_t>(step.entry->nbytes);
  for (const auto& step : steps) {
    convert(source, step, sink);
    source.release(step.entry->name);
    state.tensor = step.entry->name;
    ++state.tensors_done;
    state.bytes_done += static_cast<int64_t>(step.entry->nbytes);
    if (progress) progress(state);
  }
}

std::vector<TensorSpec> converted_tensors(const WeightSource& source,
                                          const ConvertOptions& options) {
  std::vector<TensorSpec> tensors;
  for (const auto& step : plan(source, options)) {
    const auto& [name, sizes] = std::tie(step.entry->name, step.entry->sizes);
    if (!step.quant) {
      tensors.push_back({name, step.dtype, sizes});
    } else if (*step.quant == Quant::kInt8) {
      tensors.push_back({name, at::kChar, sizes});
      tensors.push_back({scaler_of(name), step.dtype, {sizes[0]}});
    } else {
      tensors.push_back({name, at::kByte, {sizes[0], sizes[1] / 2}});
      tensors.push_back({scaler_of(name), at::kHalf, {sizes[0], sizes[1] / WeightView::kGroup}});
    }
  }
  return tensors;
}

int64_t converted_bytes(const WeightSource& source, const ConvertOptions& options) {
  uint64_t bytes = 0;
  for (const auto& tensor : converted_tensors(source, options)) bytes += tensor.nbytes();
  return static_cast<int64_t>(bytes);
}

}  // namespace gemma
