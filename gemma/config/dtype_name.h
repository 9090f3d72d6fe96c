#pragma once

#include <string_view>

#include <c10/core/ScalarType.h>

namespace gemma {

/// PyTorch's name of any dtype, for people: "float32", "int8", "float8_e4m3fn".
inline std::string_view dtype_name(c10::ScalarType dtype) {
  return c10::getDtypeNames(dtype).first;
}

}  // namespace gemma
