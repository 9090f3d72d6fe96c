#include <algorithm>
#include <stdexcept>

#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/modules/taps.h>

namespace gemma {
namespace {

// Whether all have as many tokens as the first.
bool are_alike(std::span<const PassRows::Part> parts) {
  return std::ranges::all_of(
      parts, [&](const PassRows::Part& part) { return part.tokens == parts.front().tokens; });
}

// [T, ...] -> [texts, T / texts, ...].
at::Tensor by_text(const at::Tensor& value, int64_t texts) {
  auto sizes = value.sizes().vec();
  sizes.insert(sizes.begin(), texts);
  sizes[1] /= texts;
  return value.view(sizes);
}

}  // namespace

PassRows PassRows::of_batch(int64_t texts, int64_t tokens, int64_t position) {
  PassRows rows{{}, /*is_flat=*/false};
  for (int64_t text = 0; text < texts; ++text) rows.parts.push_back({text, position, tokens});
  return rows;
}

TapPasses::Pass::Pass(TapPasses& passes, PassRows rows) : passes_(passes), rows_(std::move(rows)) {
  const std::lock_guard hold(passes_.mutex_);
  passes_.passes_.emplace_back(std::this_thread::get_id(), &rows_);
}

TapPasses::Pass::~Pass() {
  const std::lock_guard hold(passes_.mutex_);
  std::erase_if(passes_.passes_, [&](const auto& pass) { return pass.second == &rows_; });
}

const PassRows* TapPasses::current() const {
  const std::lock_guard hold(mutex_);
  const auto me = std::this_thread::get_id();
  const auto found = std::find_if(passes_.rbegin(), passes_.rend(),
                                  [me](const auto& pass) { return pass.first == me; });
  return found == passes_.rend() ? nullptr : found->second;
}

ModuleTaps::ModuleTaps(std::shared_ptr<TapPasses> passes) : passes_(std::move(passes)) {
  ++passes_->watchers_;
}

ModuleTaps::~ModuleTaps() { --passes_->watchers_; }

void ModuleTaps::add(std::string_view point,
                     std::string name,
                     TapFunction function,
                     TapHandle handle) {
  taps_.push_back({point, std::move(name), std::move(function), std::move(handle)});
}

void ModuleTaps::remove(const TapHandle& handle) {
  std::erase_if(taps_, [&](const At& tap) { return tap.handle == handle; });
}

bool ModuleTaps::has(std::string_view point) const {
  return std::ranges::any_of(taps_, [point](const At& tap) { return tap.point == point; });
}

at::Tensor ModuleTaps::call(std::string_view point,
                            at::Tensor value,
                            std::span<const PassRows::Part> parts) const {
  std::vector<int64_t> texts, positions;
  for (const auto& part : parts) {
    texts.push_back(part.text);
    positions.push_back(part.position);
  }
  for (const auto& tap : taps_) {
    if (tap.point != point) continue;
    auto given = tap.function(value, {tap.name, texts, positions});
    if (!given) continue;
    if (given->sizes() != value.sizes()) {
      throw std::invalid_argument(fmt::format(
          "tap of {}: returned [{}], but the value is [{}]; return that shape, or nothing",
          tap.name, fmt::join(given->sizes().vec(), ", "), fmt::join(value.sizes().vec(), ", ")));
    }
    value = given->to(value.options());
  }
  return value;
}

at::Tensor ModuleTaps::apply(std::string_view point, at::Tensor value) const {
  if (!has(point)) return value;
  const auto* const rows = passes_->current();
  if (rows == nullptr) return call(point, std::move(value), {});
  if (!rows->is_flat) return call(point, std::move(value), rows->parts);
  if (are_alike(rows->parts)) {
    return call(point, by_text(value, std::ssize(rows->parts)), rows->parts).flatten(0, 1);
  }
  std::vector<at::Tensor> results;
  int64_t row = 0;
  for (const auto& part : rows->parts) {
    const auto own = value.narrow(0, row, part.tokens).unsqueeze(0);
    results.push_back(call(point, own, {&part, 1}).squeeze(0));
    row += part.tokens;
  }
  return at::cat(results);
}

}  // namespace gemma
