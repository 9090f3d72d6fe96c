#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// PaliGemma's tokens for places: what it answers to "detect cat" and "segment cat".
namespace gemma {

/// A rectangle in a picture, in pixels; x runs to the right, y down, and `x1`, `y1` are behind it.
struct Box {
  double x0, y0, x1, y1;

  bool operator==(const Box&) const = default;
};

/// A thing that an answer names: "<loc0100><loc0200><loc0300><loc0400> cat".
struct LocatedObject {
  /// Top, left, bottom and right, 0 to 1023 of 1024ths of the picture.
  std::optional<std::array<int64_t, 4>> place;
  /// The 16 <segNNN>, 0 to 127, that a decoder of masks takes; empty: none.
  std::vector<int64_t> mask;
  std::string label;

  /// Where it is in a picture of this size; none without a place.
  std::optional<Box> box(int64_t height, int64_t width) const;

  bool operator==(const LocatedObject&) const = default;
};

/// The things in an answer, which are separated by ";". What has no place is a label alone, so that
/// any text is an answer: of three <locNNNN>, or of a <loc1024>, nothing becomes a place.
std::vector<LocatedObject> parse_locations(std::string_view answer);

}  // namespace gemma
