#include <span>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/npy_writer.h>
#include <gemma/checkpoint/output_file.h>
#include <gemma/config/dtype_name.h>

namespace gemma {
namespace {

std::string_view descr_of(const at::Tensor& tensor, const std::string& path) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return "<f4";
    case at::kDouble:
      return "<f8";
    case at::kHalf:
      return "<f2";
    case at::kLong:
      return "<i8";
    default:
      refuse_tensor(path, "array",
                    fmt::format("is {}, which is not written as .npy; convert it to float32, say",
                                dtype_name(tensor.scalar_type())));
  }
}

// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0.
std::string npy_header(std::string_view descr, at::IntArrayRef sizes) {
  std::string shape;
  for (const auto size : sizes) shape += fmt::format("{}, ", size);
  auto header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, shape);
  constexpr size_t kBegin = 10, kUnit = 64;
  header.append((kUnit - (kBegin + header.size() + 1) % kUnit) % kUnit, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header;
}

}  // namespace

void write_npy(const std::filesystem::path& path, const at::Tensor& tensor, bool overwrite) {
  const auto header = npy_header(descr_of(tensor, path.string()), tensor.sizes());
  const auto dense = tensor.detach().to(at::kCPU).contiguous();
  OutputFile file(path, overwrite);
  file.write(std::as_bytes(std::span(header)));
  file.write({static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()});
  file.commit();
}

}  // namespace gemma
