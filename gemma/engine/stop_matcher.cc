#include <algorithm>
#include <utility>

#include <gemma/engine/stop_matcher.h>

namespace gemma {
namespace {

// How many bytes at the end of `text` are the beginning of `stop`, but not all of it.
size_t begun(std::string_view text, std::string_view stop) {
  for (auto size = std::min(text.size(), stop.size() - 1); size > 0; --size) {
    if (text.ends_with(stop.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, "");
}

std::string StopMatcher::add(std::string_view piece) {
  if (stopped_) return {};
  // Byte by byte, so that the result does not depend on the pieces: what ends first counts.
  for (const auto byte : piece) {
    held_ += byte;
    const auto found = std::ranges::find_if(
        stops_, [&](const std::string& stop) { return held_.ends_with(stop); });
    if (found == stops_.end()) continue;
    stopped_ = true;
    // Of those that end here the longest: it begins first.
    size_t longest = 0;
    for (const auto& stop : stops_) {
      if (held_.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    held_.resize(held_.size() - longest);
    return std::exchange(held_, {});
  }
  size_t kept = 0;
  for (const auto& stop : stops_) kept = std::max(kept, begun(held_, stop));
  auto shown = held_.substr(0, held_.size() - kept);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace gemma
