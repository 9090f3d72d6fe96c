#include <memory>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/cli/points.h>

namespace gemma::cli {
namespace {

bool takes_point(EngineModel& model, const std::string& point) {
  const auto look = [](const at::Tensor&, const TapSite&) { return std::nullopt; };
  try {
    model->remove_taps(model->add_taps({{point, look}}));
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace

LanguageModel load_language_model(const ModelOptions& options) {
  auto model = std::dynamic_pointer_cast<LanguageModelImpl>(load_model(options).ptr());
  if (!model) throw std::invalid_argument(fmt::format("{}: is no Gemma", options.ckpt));
  return LanguageModel(std::move(model));
}

void check_points(EngineModel model,
                  std::string_view flag,
                  const std::vector<std::string>& points) {
  for (const auto& point : points) {
    if (takes_point(model, point)) continue;
    if (model->numerics() == Numerics::kFast) {
      model->set_numerics(Numerics::kExact);
      if (takes_point(model, point)) {
        throw std::invalid_argument(
            fmt::format("{} {}: fast numerics do not compute this by itself; use --numerics exact",
                        flag, point));
      }
    }
    throw std::invalid_argument(fmt::format(
        "{} {}: the model has no such point; gemma activations --list names them", flag, point));
  }
}

}  // namespace gemma::cli
