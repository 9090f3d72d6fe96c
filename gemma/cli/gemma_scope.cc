#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/errors.h>
#include <gemma/cli/gemma_scope.h>

namespace gemma::cli {
namespace {

// Inputs and outputs of transformers' modules in a layer, and TransformerLens' names of them.
constexpr std::pair<std::string_view, std::string_view> kPlaces[] = {
    {"output", "hook_resid_post"},
    {"self_attn.o_proj.input", "attn.hook_z"},
    {"pre_feedforward_layernorm.output", "mlp.hook_in"},
    {"post_feedforward_layernorm.output", "hook_mlp_out"},
};

// "model.layers.12.output" -> "blocks.12.hook_resid_post"; empty for one that is unknown.
std::string point_of(std::string_view hook_point) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!hook_point.starts_with(kLayers)) return {};
  hook_point.remove_prefix(kLayers.size());
  const auto dot = hook_point.find('.');
  const auto layer = hook_point.substr(0, dot);
  if (dot == hook_point.npos || layer.find_first_not_of("0123456789") != layer.npos) return {};
  for (const auto& [place, name] : kPlaces) {
    if (hook_point.substr(dot + 1) == place) return fmt::format("blocks.{}.{}", layer, name);
  }
  return {};
}

std::string point_in(const nlohmann::json& config, const char* field, const std::string& path) {
  const auto found = config.is_object() ? config.find(field) : config.end();
  const auto text =
      found != config.end() && found->is_string() ? found->get<std::string>() : std::string();
  auto point = point_of(text);
  if (!point.empty()) return point;
  throw std::runtime_error(fmt::format(
      "{}: {} is '{}', which is no known place; name it by --point", path, field, printable(text)));
}

}  // namespace

GemmaScopePoints gemma_scope_points(const std::string& params, const std::string& point) {
  if (!point.empty()) return {point, point};
  const auto path = std::filesystem::path(params).parent_path() / "config.json";
  std::ifstream file(path);
  if (!file) {
    throw std::runtime_error(fmt::format(
        "{}: no config.json beside it says which values it is for; name the point by --point, such "
        "as blocks.12.hook_resid_post",
        params));
  }
  const auto config = nlohmann::json::parse(file, /*cb=*/nullptr, /*allow_exceptions=*/false);
  return {point_in(config, "hf_hook_point_in", path.string()),
          point_in(config, "hf_hook_point_out", path.string())};
}

}  // namespace gemma::cli
