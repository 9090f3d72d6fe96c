#include <stdexcept>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/config/config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/griffin_checkpoint.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_griffin.h>

namespace gemma::recurrentgemma {
namespace {

constexpr std::string_view kEmbeddingName = "embedder.input_embedding";

std::optional<GriffinHyperparameters> stated_hyperparameters(const WeightSource& source) {
  if (const auto json = source.checkpoint().config_json()) {
    return griffin_from_hf(*json, "config.json in " + source.path());
  }
  if (!has_hf_config(source.path())) return std::nullopt;
  const MappedFile file(std::filesystem::path(source.path()) / "config.json");
  const auto bytes = file.bytes();
  return griffin_from_hf({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path());
}

}  // namespace

GriffinConfig griffin_config_of(const WeightSource& source) {
  check_family(source, Family::kRecurrentGemma, "GriffinConfig");
  const auto sizes_of = [&](const std::string& name) {
    const auto* entry = source.find(name);
    return entry == nullptr ? std::vector<int64_t>() : entry->sizes;
  };
  const auto stated = stated_hyperparameters(source);
  try {
    if (stated) return config_from_sizes(sizes_of, std::nullopt, *stated);
    if (const auto preset = preset_of(sizes_of)) return config_from_sizes(sizes_of, preset);
  } catch (const std::invalid_argument& error) {
    refuse_file(source.path(), error.what());
  }
  refuse_file(
      source.path(),
      "is of a RecurrentGemma whose sizes fit no preset, and nothing says its window: put a "
      "config.json of Hugging Face beside the weights, in a directory of their own");
}

GriffinConfig config_from_pretrained(const std::filesystem::path& path) {
  return griffin_config_of(WeightSource::open(path));
}

std::string griffin_dtype_of(const WeightSource& source) {
  const auto* entry = source.find(kEmbeddingName);
  const bool is_half =
      entry != nullptr && (entry->dtype == at::kHalf || entry->dtype == at::kBFloat16);
  return is_half ? std::string(dtype_to_string(entry->dtype)) : "float32";
}

}  // namespace gemma::recurrentgemma
