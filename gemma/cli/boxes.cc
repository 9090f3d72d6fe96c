#include <cmath>
#include <filesystem>
#include <span>
#include <stdexcept>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/output_file.h>
#include <gemma/cli/boxes.h>
#include <gemma/image/draw.h>
#include <gemma/image/png_writer.h>
#include <gemma/text/locations.h>

namespace gemma::cli {
namespace {

bool is_picture(const std::string& path) {
  return std::filesystem::path(path).extension() == ".png";
}

Frame frame_of(const Box& box) {
  return {.left = std::llround(box.x0),
          .top = std::llround(box.y0),
          .right = std::llround(box.x1),
          .bottom = std::llround(box.y1)};
}

std::string listed(std::span<const LocatedObject> objects, const Image& image) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& object : objects) {
    nlohmann::ordered_json entry = {{"label", object.label}};
    if (const auto box = object.box(image.height(), image.width())) {
      entry["box"] = {box->x0, box->y0, box->x1, box->y1};
    }
    if (!object.mask.empty()) entry["mask"] = object.mask;
    list.push_back(std::move(entry));
  }
  return list.dump() + "\n";
}

}  // namespace

void check_boxes(const std::string& path, const std::vector<std::string>& images) {
  if (!is_picture(path) && std::filesystem::path(path).extension() != ".json") {
    throw std::invalid_argument(
        fmt::format("--boxes: '{}' must end in .png, for a picture, or in .json", path));
  }
  if (images.size() != 1) {
    throw std::invalid_argument(
        fmt::format("--boxes: there are {} images; give one with --image", images.size()));
  }
}

void write_boxes(const std::string& path, const std::string& image, const std::string& answer) {
  const auto picture = read_image(image);
  const auto objects = parse_locations(answer);
  OutputFile file(path, /*overwrite=*/true);
  if (is_picture(path)) {
    std::vector<Frame> frames;
    for (const auto& object : objects) {
      const auto box = object.box(picture.height(), picture.width());
      if (box) frames.push_back(frame_of(*box));
    }
    file.write(encode_png(with_frames(picture, frames)));
  } else {
    const auto text = listed(objects, picture);
    file.write(std::as_bytes(std::span(text)));
  }
  file.commit();
}

}  // namespace gemma::cli
