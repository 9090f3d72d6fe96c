#include "image.h"

#include <gemma/vision/preprocessor.h>

namespace gemma::bindings {

void bind_preprocessor(py::module_& m) {
  m.def(
      "preprocess_images_for_siglip_vision",
      [](const std::vector<Image>& images, int64_t image_size) {
        return preprocess_images_for_siglip_vision(images, image_size);
      },
      py::arg("images"), py::arg("image_size") = kDefaultImageSize, ReleaseGil());
  m.attr("DEFAULT_IMAGE_SIZE") = kDefaultImageSize;
}

}  // namespace gemma::bindings
