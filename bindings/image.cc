#include "image.h"

#include <filesystem>
#include <span>
#include <string_view>

#include <pybind11/stl/filesystem.h>

namespace gemma::bindings {

bool is_pil_image(py::handle object) {
  const py::dict modules = py::module_::import("sys").attr("modules");
  return modules.contains("PIL.Image") &&
         py::isinstance(object, modules["PIL.Image"].attr("Image"));
}

Image from_pil(py::handle image) {
  const bool is_rgb = image.attr("mode").cast<std::string>() == "RGB";
  const py::object rgb =
      is_rgb ? py::reinterpret_borrow<py::object>(image) : py::object(image.attr("convert")("RGB"));
  const auto bytes = rgb.attr("tobytes")().cast<py::bytes>();
  return {std::as_bytes(std::span(std::string_view(bytes))), rgb.attr("height").cast<int64_t>(),
          rgb.attr("width").cast<int64_t>()};
}

py::object to_pil(const Image& image) {
  const auto* const data = reinterpret_cast<const char*>(image.pixels().const_data_ptr());
  const py::bytes bytes(data, static_cast<size_t>(image.pixels().numel()));
  return py::module_::import("PIL.Image")
      .attr("frombytes")("RGB", py::make_tuple(image.width(), image.height()), bytes);
}

void bind_image(py::module_& m) {
  m.def(
      "read_image",
      [](const std::filesystem::path& path, int64_t max_pixels) {
        return read_image(path, max_pixels).pixels();
      },
      py::arg("path"), py::arg("max_pixels") = kMaxImagePixels, ReleaseGil());
  m.def(
      "decode_image",
      [](const py::bytes& bytes, const std::string& name, int64_t max_pixels) {
        const auto view = std::as_bytes(std::span(std::string_view(bytes)));
        const py::gil_scoped_release release;
        return decode_image(view, name, max_pixels).pixels();
      },
      py::arg("bytes"), py::arg("name") = "image", py::arg("max_pixels") = kMaxImagePixels);
}

}  // namespace gemma::bindings
