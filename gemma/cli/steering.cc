#include <cmath>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/cli/points.h>
#include <gemma/cli/steering.h>

namespace gemma::cli {
namespace {

[[noreturn]] void refuse_steer(const std::string& flag, std::string_view what) {
  throw std::invalid_argument(fmt::format("--steer {}: {}", flag, what));
}

// What a --steer says.
struct Steer {
  std::string point, file;
  double factor = 1;
};

Steer parse_steer(const std::string& flag) {
  const auto equals = flag.find('=');
  if (equals == 0 || equals == flag.npos || equals + 1 == flag.size()) {
    refuse_steer(flag, "must be POINT=FILE, as in blocks.12.hook_resid_post=vector.safetensors*4");
  }
  Steer steer{.point = flag.substr(0, equals), .file = flag.substr(equals + 1)};
  const auto star = steer.file.rfind('*');
  if (star == std::string::npos) return steer;
  const auto factor = steer.file.substr(star + 1);
  size_t used = 0;
  try {
    steer.factor = std::stod(factor, &used);
  } catch (const std::logic_error&) {
    used = 0;  // No number, or one that is too large.
  }
  if (used == 0 || used != factor.size() || !std::isfinite(steer.factor)) {
    refuse_steer(flag, fmt::format("'{}' after the * is no number", factor));
  }
  steer.file.resize(star);
  return steer;
}

// "FILE:TENSOR" or "FILE"; the name of a file may have a colon, too.
std::pair<std::string, std::string> split_key(const std::string& file) {
  const auto colon = file.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(file)) return {file, ""};
  return {file.substr(0, colon), file.substr(colon + 1)};
}

// float32 [E].
at::Tensor read_vector(const std::string& flag, const Steer& steer) {
  const auto [path, key] = split_key(steer.file);
  const auto file = Checkpoint::open(path);
  const auto& entries = file.entries();
  if (key.empty() && entries.size() != 1) {
    refuse_steer(
        flag, fmt::format("{} has {} tensors; name one, as {}:TENSOR", path, entries.size(), path));
  }
  const auto name = key.empty() ? entries.front().name : key;
  if (!file.contains(name)) refuse_steer(flag, fmt::format("{} has no tensor '{}'", path, name));
  const auto values = file.tensor(name);
  if (values.dim() == 0 || values.numel() != values.size(-1) || values.numel() == 0 ||
      !at::isFloatingType(values.scalar_type())) {
    refuse_steer(flag,
                 fmt::format("the tensor '{}' is {} [{}], but must be a vector of floats", name,
                             c10::toString(values.scalar_type()), fmt::join(values.sizes(), ", ")));
  }
  auto vector = values.to(at::kFloat).reshape(-1) * steer.factor;
  if (!vector.isfinite().all().item<bool>()) {
    refuse_steer(flag, fmt::format("the tensor '{}' has NaN or infinity in it", name));
  }
  return vector;
}

}  // namespace

void add_steering(EngineModel model, const std::vector<std::string>& flags) {
  std::vector<Tap> taps;
  for (const auto& flag : flags) {
    const auto steer = parse_steer(flag);
    check_points(model, "--steer", {steer.point});
    taps.push_back({steer.point,
                    [flag, vector = read_vector(flag, steer)](
                        const at::Tensor& value, const TapSite& site) -> std::optional<at::Tensor> {
                      if (value.size(-1) != vector.size(0)) {
                        refuse_steer(flag, fmt::format("the vector has {} numbers, but {} has {}",
                                                       vector.size(0), site.name, value.size(-1)));
                      }
                      return value + vector.to(value.options());
                    }});
  }
  if (!taps.empty()) model->add_taps(taps);
}

}  // namespace gemma::cli
