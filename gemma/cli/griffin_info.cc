#include <type_traits>

#include <fmt/format.h>

#include <gemma/cli/griffin_info.h>
#include <gemma/cli/module_sizes.h>
#include <gemma/cli/output.h>
#include <gemma/config/config.h>
#include <gemma/config/fields.h>
#include <gemma/models/griffin.h>
#include <gemma/models/summary.h>

namespace gemma::cli {
namespace {

// "R" and "A" for the blocks.
std::string blocks_text(const recurrentgemma::GriffinConfig& config) {
  std::string text;
  for (const auto type : config.block_types) text += to_string(type).front();
  return text + "  (R recurrent, A attention)";
}

}  // namespace

void print_griffin(const recurrentgemma::GriffinConfig& config, const std::string& dtype_name) {
  show("Config\n");
  visit_fields<recurrentgemma::GriffinConfig>([&](const auto& field) {
    using Value = std::remove_cvref_t<decltype(config.*field.member)>;
    if constexpr (std::is_same_v<Value, std::vector<recurrentgemma::TemporalBlockType>>) {
      show("  {:<28} {}\n", field.name, blocks_text(config));
    } else if constexpr (std::is_enum_v<Value>) {
      show("  {:<28} {}\n", field.name, to_string(config.*field.member));
    } else if constexpr (std::is_same_v<Value, std::optional<int64_t>>) {
      const auto value = config.*field.member;
      show("  {:<28} {}\n", field.name, value ? grouped(*value) : "none");
    } else if constexpr (std::is_same_v<Value, int64_t>) {
      show("  {:<28} {}\n", field.name, grouped(config.*field.member));
    } else {
      show("  {:<28} {}\n", field.name, config.*field.member);
    }
  });
  const auto dtype = dtype_from_string(dtype_name);
  const DefaultDtypeGuard guard(dtype);
  const recurrentgemma::Griffin model(config);
  show("\nModules\n{}\n", to_string(*model));
  print_size_header();
  for (const auto& child : model->named_children()) {
    print_size(child.key(), size_of(*child.value()));
  }
  print_size("total", size_of(*model));
  const auto state = recurrentgemma::state_size(config, dtype);
  show("\nState: {} bytes a text, of any length ({})\n", grouped(state.recurrent + state.attention),
       dtype_name);
  show("  {} in recurrent blocks, {} in attention blocks\n", grouped(state.recurrent),
       grouped(state.attention));
}

std::optional<recurrentgemma::Preset> griffin_preset(const std::string& name) {
  for (const auto preset : recurrentgemma::presets()) {
    if (to_string(preset) == name) return preset;
  }
  return std::nullopt;
}

std::vector<std::string_view> griffin_presets() {
  std::vector<std::string_view> names;
  for (const auto preset : recurrentgemma::presets()) names.push_back(to_string(preset));
  return names;
}

}  // namespace gemma::cli
