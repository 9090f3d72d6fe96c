#pragma once

#include "bindings.h"

#include <gemma/image/image.h>

namespace gemma::bindings {

// Whether `object` is a PIL.Image.Image. PIL is not imported for that: without it there is none.
bool is_pil_image(py::handle object);

// Differs from siglip_vision/preprocessor.py: a PIL image of another mode than "RGB" is converted
// to it; the reference fails on it.
Image from_pil(py::handle image);
py::object to_pil(const Image& image);

}  // namespace gemma::bindings

namespace pybind11::detail {

// An image is a PIL image in Python.
template <>
struct type_caster<gemma::Image> {
  // By hand, as PYBIND11_TYPE_CASTER wants a default constructor.
  static constexpr auto name = const_name("PIL.Image.Image");
  template <typename T>
  using cast_op_type = movable_cast_op_type<T>;

  bool load(handle source, bool) {
    if (!gemma::bindings::is_pil_image(source)) return false;
    value_.emplace(gemma::bindings::from_pil(source));
    return true;
  }

  static handle cast(const gemma::Image& image, return_value_policy, handle) {
    return gemma::bindings::to_pil(image).release();
  }

  operator gemma::Image*() { return &*value_; }
  operator gemma::Image&() { return *value_; }
  operator gemma::Image&&() && { return std::move(*value_); }

 private:
  std::optional<gemma::Image> value_;
};

}  // namespace pybind11::detail
