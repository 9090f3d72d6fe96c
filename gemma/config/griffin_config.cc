#include <algorithm>
#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/config/griffin_config.h>

namespace gemma::recurrentgemma {
namespace {

constexpr auto kAttention = TemporalBlockType::kAttention;
constexpr auto kRecurrent = TemporalBlockType::kRecurrent;

struct PresetRow {
  Preset preset;
  std::string_view name;
  int64_t width, num_heads, lru_width, num_layers;
  bool has_attention;
  bool embeddings_scale_by_sqrt_dim;
  int64_t attention_window_size;
  double logits_soft_cap;
};

// clang-format off
constexpr std::array kPresets{
    //                                                       width heads   LRU layers  attends scales window cap
    PresetRow{Preset::kGriffinPaper7B,     "GRIFFIN_PAPER_7B",      4096, 32, 5632, 32, true,  false, 1024,  0},
    PresetRow{Preset::kHawkPaper7B,        "HAWK_PAPER_7B",         4096, 32, 5632, 32, false, false, 1024,  0},
    PresetRow{Preset::kRecurrentGemma2BV1, "RECURRENT_GEMMA_2B_V1", 2560, 10, 2560, 26, true,  true,  2048, 30},
    PresetRow{Preset::kRecurrentGemma9BV1, "RECURRENT_GEMMA_9B_V1", 4096, 16, 4096, 38, true,  true,  2048, 30},
};
// clang-format on

const PresetRow& row_of(Preset preset) {
  const auto row = std::ranges::find(kPresets, preset, &PresetRow::preset);
  if (row != kPresets.end()) return *row;
  throw std::invalid_argument(
      fmt::format("Preset {} is unknown; valid: 1 to 4", static_cast<int>(preset)));
}

void require_positive(std::string_view field, int64_t value) {
  if (value > 0) return;
  throw std::invalid_argument(
      fmt::format("GriffinConfig: {} is {}, but must be at least 1", field, value));
}

void require_multiple(std::string_view field, int64_t value, int64_t num_heads) {
  if (value % num_heads == 0) return;
  throw std::invalid_argument(fmt::format(
      "GriffinConfig: {} ({}) must be a multiple of num_heads ({})", field, value, num_heads));
}

void shorten_window(GriffinConfig& config, std::optional<int64_t> max_sequence_length) {
  if (!max_sequence_length) return;
  config.attention_window_size = std::min(config.attention_window_size, *max_sequence_length);
}

// Of a tensor that every Griffin has.
std::vector<int64_t> required(const SizesOf& sizes_of, const std::string& name, size_t dimensions) {
  auto sizes = sizes_of(name);
  if (sizes.size() == dimensions) return sizes;
  throw std::invalid_argument(
      fmt::format("GriffinConfig: {} '{}'; are these the weights of a RecurrentGemma?",
                  sizes.empty() ? "no tensor" : "wrong number of dimensions of", name));
}

// Block types, heads and the recurrence's width; num_heads stays 0 where no block is recurrent.
// Differs from common.py: there heads are counted again at each attention block, from the wrong
// dimension, so that a model whose last block is one has a single head.
void read_blocks(const SizesOf& sizes_of, GriffinConfig& config) {
  for (int64_t i = 0;; ++i) {
    const auto block = fmt::format("blocks.{}.", i);
    if (sizes_of(block + "channel_pre_norm.scale").empty()) return;
    const auto gate = sizes_of(block + "recurrent_block.rg_lru.a_gate.w");
    const auto key = sizes_of(block + "attention_block.proj_k.weight");
    if (gate.size() == 3) {
      config.block_types.push_back(kRecurrent);
      config.num_heads = gate[0];
      config.lru_width = gate[0] * gate[1];
    } else if (key.size() == 2 && key[0] > 0) {
      config.block_types.push_back(kAttention);
      if (!config.lru_width) config.num_heads = config.width / key[0];
    } else {
      throw std::invalid_argument(fmt::format(
          "GriffinConfig: blocks.{} is neither a recurrent nor an attention block; are these the "
          "weights of a RecurrentGemma?",
          i));
    }
  }
}

// What the shapes say.
GriffinConfig read_sizes(const SizesOf& sizes_of) {
  GriffinConfig config;
  const auto embedding = required(sizes_of, "embedder.input_embedding", 2);
  config.vocab_size = embedding[0];
  config.width = embedding[1];
  config.mlp_expanded_width = required(sizes_of, "blocks.0.mlp_block.ffw_up.w", 3)[2];
  read_blocks(sizes_of, config);
  return config;
}

// The first field that is not the preset's; empty if there is none.
std::string_view difference(const GriffinConfig& sizes, Preset preset) {
  const auto want = GriffinConfig::from_preset(preset);
  if (sizes.width != want.width) return "width";
  if (sizes.mlp_expanded_width != want.mlp_expanded_width) return "mlp_expanded_width";
  if (sizes.num_heads != want.num_heads) return "num_heads";
  if (sizes.lru_width != want.lru_width) return "lru_width";
  if (sizes.block_types != want.block_types) return "block_types";
  return {};
}

}  // namespace

std::string_view to_string(TemporalBlockType type) {
  switch (type) {
    case TemporalBlockType::kAttention:
      return "ATTENTION";
    case TemporalBlockType::kRecurrent:
      return "RECURRENT";
  }
  throw std::invalid_argument(
      fmt::format("TemporalBlockType {} is unknown; valid: 1 (ATTENTION), 2 (RECURRENT)",
                  static_cast<int>(type)));
}

std::string_view to_string(ScanType type) {
  switch (type) {
    case ScanType::kAuto:
      return "AUTO";
    case ScanType::kLinearNative:
      return "LINEAR_NATIVE";
    case ScanType::kAssociativeNative:
      return "ASSOCIATIVE_NATIVE";
    case ScanType::kLinearPallas:
      return "LINEAR_PALLAS";
  }
  throw std::invalid_argument(
      fmt::format("ScanType {} is unknown; valid: 1 to 4", static_cast<int>(type)));
}

std::string_view to_string(Preset preset) { return row_of(preset).name; }

std::vector<Preset> presets() {
  std::vector<Preset> all;
  for (const auto& row : kPresets) all.push_back(row.preset);
  return all;
}

GriffinConfig GriffinConfig::from_preset(Preset preset,
                                         int64_t vocab_size,
                                         std::optional<int64_t> max_sequence_length) {
  const auto& row = row_of(preset);
  GriffinConfig config{.vocab_size = vocab_size,
                       .width = row.width,
                       .mlp_expanded_width = 3 * row.width,
                       .num_heads = row.num_heads,
                       .embeddings_scale_by_sqrt_dim = row.embeddings_scale_by_sqrt_dim,
                       .attention_window_size = row.attention_window_size,
                       .logits_soft_cap = row.logits_soft_cap,
                       .lru_width = row.lru_width};
  for (int64_t i = 0; i < row.num_layers; ++i) {
    config.block_types.push_back(row.has_attention && i % 3 == 2 ? kAttention : kRecurrent);
  }
  shorten_window(config, max_sequence_length);
  return config;
}

void validate(const GriffinConfig& config) {
  require_positive("vocab_size", config.vocab_size);
  require_positive("width", config.width);
  require_positive("mlp_expanded_width", config.mlp_expanded_width);
  require_positive("num_heads", config.num_heads);
  require_positive("attention_window_size", config.attention_window_size);
  require_positive("lru_width", config.lru_width.value_or(config.width));
  if (config.block_types.empty()) {
    throw std::invalid_argument(
        "GriffinConfig: block_types is empty; valid: one or more of ATTENTION, RECURRENT");
  }
  for (const auto type : config.block_types) to_string(type);
  require_multiple("width", config.width, config.num_heads);
  require_multiple("lru_width", config.lru_width.value_or(config.width), config.num_heads);
  const auto head_dim = config.width / config.num_heads;
  const bool attends =
      std::ranges::find(config.block_types, kAttention) != config.block_types.end();
  if (!attends || head_dim % 4 == 0) return;
  throw std::invalid_argument(
      fmt::format("GriffinConfig: a head is {} wide (width / num_heads), but must be a multiple of "
                  "4: the halves of its first half are rotated",
                  head_dim));
}

std::optional<Preset> preset_of(const SizesOf& sizes_of) {
  const auto sizes = read_sizes(sizes_of);
  const auto row = std::ranges::find_if(
      kPresets, [&](const PresetRow& preset) { return difference(sizes, preset.preset).empty(); });
  return row == kPresets.end() ? std::nullopt : std::optional(row->preset);
}

GriffinConfig config_from_sizes(const SizesOf& sizes_of,
                                std::optional<Preset> preset,
                                const GriffinHyperparameters& given) {
  auto config = read_sizes(sizes_of);
  std::optional<GriffinConfig> rest;
  if (preset) {
    rest = GriffinConfig::from_preset(*preset);
    if (const auto field = difference(config, *preset); !field.empty()) {
      throw std::invalid_argument(fmt::format(
          "GriffinConfig: the weights' {} is not that of {}; leave out the preset, and give "
          "embeddings_scale_by_sqrt_dim, attention_window_size and logits_soft_cap",
          field, to_string(*preset)));
    }
  }
  const auto chosen = [&](std::string_view field, const auto& value, auto GriffinConfig::* member) {
    if (value) return *value;
    if (rest) return *rest.*member;
    throw std::invalid_argument(fmt::format(
        "GriffinConfig: no {}, which the weights do not say; give it, or a preset", field));
  };
  using C = GriffinConfig;
  config.embeddings_scale_by_sqrt_dim =
      chosen("embeddings_scale_by_sqrt_dim", given.embeddings_scale_by_sqrt_dim,
             &C::embeddings_scale_by_sqrt_dim);
  config.attention_window_size =
      chosen("attention_window_size", given.attention_window_size, &C::attention_window_size);
  config.logits_soft_cap = chosen("logits_soft_cap", given.logits_soft_cap, &C::logits_soft_cap);
  config.scan_type = given.scan_type.value_or(ScanType::kAuto);
  shorten_window(config, given.max_sequence_length);
  return config;
}

}  // namespace gemma::recurrentgemma
