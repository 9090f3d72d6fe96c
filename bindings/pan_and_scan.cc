#include "image.h"

#include <gemma/vision/pan_and_scan.h>

namespace gemma::bindings {

void bind_pan_and_scan(py::module_& m) {
  m.def("pan_and_scan", pan_and_scan, py::arg("img"), py::kw_only(), py::arg("min_crop_size") = 256,
        py::arg("max_num_crops") = 4, ReleaseGil());
  m.def(
      "pan_and_scan_os_with_crop_positions",
      [](const Image& img, int64_t min_crop_size, int64_t max_num_crops) {
        const auto crops = pan_and_scan_os_with_crop_positions(img, min_crop_size, max_num_crops);
        py::list positions;
        for (const auto& [top, left, bottom, right] : crops.positions) {
          positions.append(py::make_tuple(top, left, bottom, right));
        }
        return py::make_tuple(crops.images, positions);
      },
      py::arg("img"), py::kw_only(), py::arg("min_crop_size") = 256, py::arg("max_num_crops") = 4);
}

}  // namespace gemma::bindings
