#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gemma::recurrentgemma {

/// recurrentgemma/common.py: TemporalBlockType. What a residual block mixes tokens with.
enum class TemporalBlockType { kAttention = 1, kRecurrent = 2 };

/// recurrentgemma/common.py: ScanType. How JAX would run the recurrence; nothing here reads it.
enum class ScanType { kAuto = 1, kLinearNative = 2, kAssociativeNative = 3, kLinearPallas = 4 };

/// recurrentgemma/common.py: Preset. The models that were published, and those of the paper.
enum class Preset {
  kGriffinPaper7B = 1,
  kHawkPaper7B = 2,
  kRecurrentGemma2BV1 = 3,
  kRecurrentGemma9BV1 = 4
};

/// The reference's spelling: "ATTENTION", "AUTO", "RECURRENT_GEMMA_2B_V1". Throws
/// std::invalid_argument for a value that is not an enumerator.
std::string_view to_string(TemporalBlockType type);
std::string_view to_string(ScanType type);
std::string_view to_string(Preset preset);

/// All of them, in the reference's order.
std::vector<Preset> presets();

/// recurrentgemma/common.py: GriffinConfig. Fields and order are the reference's, which has no
/// defaults for the first eight.
struct GriffinConfig {
  /// Rows of the embedding, V.
  int64_t vocab_size = 0;
  /// Of the embeddings and of every block's output.
  int64_t width = 0;
  /// Of the hidden layer of an MLP.
  int64_t mlp_expanded_width = 0;
  /// Query heads, and blocks of the recurrence's gates; divides width and lru_width.
  int64_t num_heads = 0;
  /// Of each residual block, in order.
  std::vector<TemporalBlockType> block_types = {};
  /// Whether embeddings are multiplied by the root of width.
  bool embeddings_scale_by_sqrt_dim = false;
  /// Tokens before a token that it sees: it sees one key more, its own.
  int64_t attention_window_size = 0;
  /// Soft limit of the logits; 0: none.
  double logits_soft_cap = 0;
  /// Of the recurrence; width when absent.
  std::optional<int64_t> lru_width = std::nullopt;
  ScanType scan_type = ScanType::kAuto;

  /// The positions that the cache of an attention block has room for.
  int64_t max_cache_length() const { return attention_window_size; }
  int64_t num_layers() const { return static_cast<int64_t>(block_types.size()); }

  /// max_sequence_length makes the window smaller, for texts that are never longer.
  static GriffinConfig from_preset(Preset preset,
                                   int64_t vocab_size = 256'000,
                                   std::optional<int64_t> max_sequence_length = std::nullopt);

  bool operator==(const GriffinConfig&) const = default;
};

/// Throws std::invalid_argument, naming the field, when no model can be built from `config`.
void validate(const GriffinConfig& config);

/// What the shapes of weights do not say.
struct GriffinHyperparameters {
  std::optional<bool> embeddings_scale_by_sqrt_dim = std::nullopt;
  std::optional<int64_t> attention_window_size = std::nullopt;
  std::optional<double> logits_soft_cap = std::nullopt;
  std::optional<ScanType> scan_type = std::nullopt;
  std::optional<int64_t> max_sequence_length = std::nullopt;
};

/// Sizes of the tensor of that name; empty when there is none.
using SizesOf = std::function<std::vector<int64_t>(const std::string& name)>;

/// The published model or the paper's whose shapes the weights have; none when they fit no preset.
/// Throws std::invalid_argument, naming the tensor, when they are of no Griffin.
std::optional<Preset> preset_of(const SizesOf& sizes_of);

/// recurrentgemma/common.py: GriffinConfig.from_torch_params. Sizes from the weights, the rest from
/// `given`, or else from the preset. Throws std::invalid_argument, naming the tensor or the field,
/// when the weights are of no Griffin, are not those of the preset, or nothing says the rest.
GriffinConfig config_from_sizes(const SizesOf& sizes_of,
                                std::optional<Preset> preset,
                                const GriffinHyperparameters& given = {});

}  // namespace gemma::recurrentgemma
