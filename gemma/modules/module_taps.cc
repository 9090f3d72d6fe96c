// Module's part that finds points by name and gives them taps.
#include <algorithm>
#include <fnmatch.h>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/modules/module.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

// The first of a point's names that a tap asks for; null: none.
const std::string* fitting(const std::string& asked, const std::vector<std::string>& names) {
  const bool is_pattern = asked.find_first_of("*?[\\") != std::string::npos;
  const auto fits = [&](const std::string& name) {
    return is_pattern ? ::fnmatch(asked.c_str(), name.c_str(), /*flags=*/0) == 0 : asked == name;
  };
  const auto found = std::ranges::find_if(names, fits);
  return found == names.end() ? nullptr : &*found;
}

std::string class_name(const Module& module) {
  const auto signature = module.signature();
  return signature.substr(0, signature.find('('));
}

}  // namespace

struct Module::NamedPoint {
  Module* module;
  std::string_view point;
  std::vector<std::string> names;
};

std::vector<Module::NamedPoint> Module::named_points() {
  std::vector<NamedPoint> found;
  for (const auto& item : named_modules()) {
    auto* const ours = dynamic_cast<Module*>(item.value().get());
    if (ours == nullptr) continue;
    for (const auto& point : ours->tap_points()) {
      const auto& path = item.key();
      std::vector<std::string> names{
          fmt::format("{}{}{}", path, path.empty() ? "" : ".", point.name)};
      for (auto& name : other_names(names.front())) names.push_back(std::move(name));
      found.push_back({ours, point.name, std::move(names)});
    }
  }
  return found;
}

std::vector<std::vector<std::string>> Module::tap_names() {
  std::vector<std::vector<std::string>> names;
  for (auto& point : named_points()) names.push_back(std::move(point.names));
  return names;
}

TapHandle Module::add_taps(const std::vector<Tap>& taps) {
  const UseLock::Change change(use_lock(), "add_taps");
  const auto points = named_points();
  const TapHandle handle = std::make_shared<const int>();
  try {
    for (const auto& tap : taps) {
      bool is_found = false;
      for (const auto& [module, point, names] : points) {
        const auto* const name = fitting(tap.points, names);
        if (name == nullptr) continue;
        is_found = true;
        if (!module->taps_) module->taps_ = std::make_unique<ModuleTaps>(module->passes_);
        module->taps_->add(point, *name, tap.function, handle);
      }
      if (is_found) continue;
      throw std::invalid_argument(fmt::format("taps: {} has no point '{}'; tap_names() lists them",
                                              class_name(*this), tap.points));
    }
    for (const auto* module : all_ours()) module->check_taps(module->numerics());
  } catch (...) {
    remove_taps(handle);
    throw;
  }
  return handle;
}

void Module::remove_taps(const TapHandle& handle) {
  const UseLock::Change change(use_lock(), "remove_taps");
  for (auto* module : all_ours()) {
    if (!module->taps_) continue;
    module->taps_->remove(handle);
    if (module->taps_->empty()) module->taps_ = nullptr;
  }
}

bool Module::is_tapped_inside() const {
  return taps_ && std::ranges::any_of(tap_points(), [this](const TapPoint& point) {
           return point.is_inner && taps_->has(point.name);
         });
}

at::Tensor Module::tapped(std::string_view point, const at::Tensor& value) const {
  return taps_ ? taps_->apply(point, value) : value;
}

at::Tensor Module::tapped_copy(std::string_view point, const at::Tensor& value) const {
  return is_tapped_at(point) ? taps_->apply(point, value.clone()) : value;
}

std::vector<std::string> Module::other_names(const std::string& /*path*/) const { return {}; }

void Module::check_taps(Numerics numerics) const {
  if (!taps_ || numerics == Numerics::kExact) return;
  for (const auto& point : tap_points()) {
    if (!point.is_inner || !taps_->has(point.name)) continue;
    throw std::invalid_argument(
        fmt::format("taps: fast numerics do not compute {} of {} by itself; use "
                    "set_numerics(\"exact\")",
                    point.name, class_name(*this)));
  }
}

}  // namespace gemma
