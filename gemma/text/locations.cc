#include <algorithm>
#include <charconv>

#include <gemma/text/locations.h>

namespace gemma {
namespace {

constexpr int64_t kPlaces = 1024;
constexpr int64_t kMaskCodes = 128;
constexpr size_t kMaskLength = 16;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n";
  const auto first = text.find_first_not_of(kBlanks);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Takes "<loc0123>" off the beginning of `text`, if it is there -> 123.
std::optional<int64_t> take_code(std::string_view& text,
                                 std::string_view name,
                                 size_t digits,
                                 int64_t below) {
  const auto size = 1 + name.size() + digits + 1;
  if (text.size() < size || text[0] != '<' || text.substr(1, name.size()) != name ||
      text[size - 1] != '>') {
    return std::nullopt;
  }
  const auto* const begin = text.data() + 1 + name.size();
  int64_t code = 0;
  const auto [end, error] = std::from_chars(begin, begin + digits, code);
  if (error != std::errc() || end != begin + digits || *begin == '-' || code >= below) {
    return std::nullopt;
  }
  text.remove_prefix(size);
  return code;
}

// As many of them as there are, at most `count`; `text` is left as it is when they are fewer.
std::vector<int64_t> take_codes(
    std::string_view& text, std::string_view name, size_t digits, int64_t below, size_t count) {
  auto rest = text;
  std::vector<int64_t> codes;
  while (codes.size() < count) {
    const auto code = take_code(rest, name, digits, below);
    if (!code) return {};
    codes.push_back(*code);
  }
  text = rest;
  return codes;
}

LocatedObject parse_object(std::string_view text) {
  text = trimmed(text);
  LocatedObject object;
  if (const auto codes = take_codes(text, "loc", 4, kPlaces, 4); !codes.empty()) {
    object.place.emplace();
    std::ranges::copy(codes, object.place->begin());
  }
  text = trimmed(text);
  object.mask = take_codes(text, "seg", 3, kMaskCodes, kMaskLength);
  object.label = trimmed(text);
  return object;
}

}  // namespace

std::optional<Box> LocatedObject::box(int64_t height, int64_t width) const {
  if (!place) return std::nullopt;
  const auto share = [](int64_t code, int64_t size) {
    return static_cast<double>(code) / static_cast<double>(kPlaces) * static_cast<double>(size);
  };
  const auto& [top, left, bottom, right] = *place;
  return Box{.x0 = share(left, width),
             .y0 = share(top, height),
             .x1 = share(right, width),
             .y1 = share(bottom, height)};
}

std::vector<LocatedObject> parse_locations(std::string_view answer) {
  std::vector<LocatedObject> objects;
  while (true) {
    const auto end = answer.find(';');
    const auto part = answer.substr(0, end);
    if (!trimmed(part).empty()) objects.push_back(parse_object(part));
    if (end == answer.npos) return objects;
    answer.remove_prefix(end + 1);
  }
}

}  // namespace gemma
