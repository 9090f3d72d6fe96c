#include <algorithm>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/family.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_fields.h>

namespace gemma {
namespace {

constexpr std::array kFamilies = {
    FamilyRow{.family = Family::kRecurrentGemma,
              .name = "RecurrentGemma",
              .taken_by = "`gemma run` and gemma_libtorch.recurrentgemma",
              .model_types = {"recurrent_gemma"},
              .config_flag = {},
              .architectures = {},
              .tensor = "embedder.input_embedding"},
    FamilyRow{.family = Family::kPaliGemma,
              .name = "PaliGemma",
              .taken_by = "`gemma run` and gemma_libtorch.paligemma",
              .model_types = {"paligemma"},
              .config_flag = {},
              .architectures = {},
              .tensor = "multi_modal_projector.linear.weight"},
    // Its network is Gemma 3's, with each token seeing those behind it, too.
    FamilyRow{.family = Family::kEmbeddingGemma,
              .name = "EmbeddingGemma",
              .taken_by = "`gemma embed` and gemma_libtorch.embedding",
              .model_types = {"gemma3_text"},
              .config_flag = "use_bidirectional_attention",
              .architectures = {"gemma-embedding"},
              .tensor = {}},
    FamilyRow{.family = Family::kGemma,
              .name = "Gemma",
              .taken_by = "`gemma run` and gemma_libtorch.model",
              .model_types = {"gemma", "gemma2", "gemma3_text", "gemma3", "vaultgemma"},
              .config_flag = {},
              .architectures = {"gemma", "gemma2", "gemma3"},
              .tensor = {}},
};

// Rows are filled up with empty names.
bool has_name(const auto& row, std::string_view name) {
  return !name.empty() && std::ranges::count(row, name) > 0;
}

std::optional<Family> family_of_gguf(const GgufMetadata& metadata) {
  const auto architecture = metadata.get<std::string>("general.architecture");
  if (!architecture) return std::nullopt;
  for (const auto& row : kFamilies) {
    if (has_name(row.architectures, *architecture)) return row.family;
  }
  return std::nullopt;
}

std::optional<Family> family_of_json(std::string_view text, const std::string& path) {
  const auto value = parse_fields(text, path);
  return family_of(Fields(value, path));
}

std::optional<Family> stated_family(const WeightSource& source) {
  if (const auto json = source.checkpoint().config_json()) {
    return family_of_json(*json, "config.json in " + source.path());
  }
  if (!has_hf_config(source.path())) return std::nullopt;
  const MappedFile file(std::filesystem::path(source.path()) / "config.json");
  const auto bytes = file.bytes();
  return family_of_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path());
}

}  // namespace

const FamilyRow& family_row(Family family) {
  return *std::ranges::find(kFamilies, family, &FamilyRow::family);
}

std::optional<Family> family_of(const WeightSource& source) {
  if (const auto* const metadata = source.checkpoint().metadata()) return family_of_gguf(*metadata);
  for (const auto& row : kFamilies) {
    if (!row.tensor.empty() && source.contains(row.tensor)) return row.family;
  }
  if (const auto stated = stated_family(source)) return stated;
  const bool is_gemma =
      source.contains("embedder.weight") || source.contains("text_token_embedder.weight");
  return is_gemma ? std::optional(Family::kGemma) : std::nullopt;
}

std::optional<Family> family_of(const Fields& config) {
  const auto type = config.text("model_type");
  if (!type) return std::nullopt;
  for (const auto& row : kFamilies) {
    const bool is_flagged = row.config_flag.empty() || config.flag(row.config_flag);
    if (is_flagged && has_name(row.model_types, *type)) return row.family;
  }
  return std::nullopt;
}

void check_family(const WeightSource& source, Family want, std::string_view who) {
  const auto family = family_of(source);
  if (!family || *family == want) return;
  refuse_file(source.path(), fmt::format("holds {}; {} takes {}", other_family(*family), who,
                                         family_row(want).name));
}

std::string other_family(Family family) {
  const auto& row = family_row(family);
  return fmt::format("{}, which is for {}", row.name, row.taken_by);
}

}  // namespace gemma
