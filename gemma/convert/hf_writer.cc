#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/convert/hf_writer.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_layout.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

void write_text(const fs::path& path, const std::string& text) {
  OutputFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

torch::Tensor part_of(const torch::Tensor& tensor, const HfPart& part) {
  const auto rows = tensor.dim() == 0 ? tensor : tensor.narrow(0, part.first, part.rows);
  return part.transposed ? rows.t() : rows;
}

int64_t rows_of(at::IntArrayRef sizes) { return sizes.empty() ? 1 : sizes.front(); }

// What transformers has for a tensor: nothing for rotary tables.
std::vector<HfPart> parts_of(const std::string& name,
                             at::IntArrayRef sizes,
                             const GemmaConfig& config) {
  if (is_rope_table(name)) return {};
  const auto rows = rows_of(sizes);
  auto parts = hf_parts(name, rows, config);
  if (parts.back().first + parts.back().rows != rows) {
    throw std::invalid_argument(
        fmt::format("convert_weights: tensor '{}' is [{}], which does not fit the config; was the "
                    "right variant given?",
                    name, fmt::join(sizes, ", ")));
  }
  return parts;
}

// The files of a model, one after another, as its tensors come.
class Shards {
 public:
  Shards(fs::path directory, const std::vector<TensorSpec>& tensors, uint64_t shard_bytes)
      : directory_(std::move(directory)) {
    uint64_t bytes = 0;
    for (const auto& tensor : tensors) {
      if (specs_.empty() || bytes + tensor.nbytes() > shard_bytes) {
        specs_.emplace_back();
        bytes = 0;
      }
      bytes += tensor.nbytes();
      saved_.bytes += tensor.nbytes();
      specs_.back().push_back(tensor);
    }
    saved_.tensors = static_cast<int64_t>(tensors.size());
    saved_.shards = static_cast<int64_t>(specs_.size());
  }

  void add(const std::string& name, const torch::Tensor& tensor) {
    if (!writer_) {
      writer_ = std::make_unique<SafetensorsWriter>(directory_ / name_of(next_), specs_[next_]);
    }
    writer_->add(name, tensor);
    if (++in_shard_ < specs_[next_].size()) return;
    writer_->finish();
    writer_.reset();
    in_shard_ = 0;
    ++next_;
  }

  void write_index() const {
    if (specs_.size() < 2) return;
    nlohmann::ordered_json index;
    index["metadata"] = {{"total_size", saved_.bytes}};
    for (size_t i = 0; i < specs_.size(); ++i) {
      for (const auto& tensor : specs_[i]) index["weight_map"][tensor.name] = name_of(i);
    }
    write_text(directory_ / "model.safetensors.index.json", index.dump(2) + "\n");
  }

  const SavedModel& saved() const { return saved_; }

 private:
  std::string name_of(size_t shard) const {
    if (specs_.size() < 2) return "model.safetensors";
    return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, specs_.size());
  }

  fs::path directory_;
  std::vector<std::vector<TensorSpec>> specs_;  // Of each file.
  SavedModel saved_;
  std::unique_ptr<SafetensorsWriter> writer_;
  size_t next_ = 0, in_shard_ = 0;
};

std::vector<TensorSpec> their_tensors(const std::vector<TensorSpec>& ours,
                                      const GemmaConfig& config) {
  std::vector<TensorSpec> theirs;
  for (const auto& tensor : ours) {
    for (const auto& part : parts_of(tensor.name, tensor.sizes, config)) {
      TensorSpec spec{part.name, tensor.dtype, tensor.sizes};
      if (!spec.sizes.empty()) spec.sizes[0] = part.rows;
      if (part.transposed) std::swap(spec.sizes.at(0), spec.sizes.at(1));
      theirs.push_back(std::move(spec));
    }
  }
  return theirs;
}

}  // namespace

SavedModel write_hf(const WeightSource& source,
                    GemmaConfig config,
                    ConvertOptions options,
                    const fs::path& directory,
                    const ProgressCallback& progress,
                    uint64_t shard_bytes) {
  if (options.quant) {
    throw std::invalid_argument(
        "convert_weights: transformers does not read the reference's int8 or our int4; leave "
        "--quant away");
  }
  const auto* const norm = source.find("model.norm.weight");
  const bool is_float64 = norm != nullptr && norm->dtype == at::kDouble;
  if (is_float64 && !options.dtype) options.dtype = at::kFloat;  // No model computes in float64.
  const auto tensors = converted_tensors(source, options);
  for (const auto& tensor : tensors) {
    if (tensor.name == "model.norm.weight") config.dtype = dtype_to_string(tensor.dtype);
  }
  const auto config_text = config_to_hf(config);
  Shards shards(directory, their_tensors(tensors, config), shard_bytes);
  convert_weights(
      source, options,
      [&](const std::string& name, const torch::Tensor& tensor) {
        for (const auto& part : parts_of(name, tensor.sizes(), config)) {
          shards.add(part.name, part_of(tensor, part));
        }
      },
      progress);
  shards.write_index();
  write_text(directory / "config.json", config_text);
  return shards.saved();
}

}  // namespace gemma
