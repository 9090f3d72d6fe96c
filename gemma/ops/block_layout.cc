#include <numeric>
#include <span>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/ops/block_layout.h>

namespace gemma {

int64_t BlockLayout::rows() const {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t sum, const Part& part) { return sum + part.rows; });
}

int64_t BlockLayout::row_bytes(const Part& part) const {
  const auto& format = block_format(part.encoding);
  return columns / static_cast<int64_t>(format.elements) * static_cast<int64_t>(format.bytes);
}

int64_t BlockLayout::bytes() const {
  return std::accumulate(
      parts.begin(), parts.end(), int64_t{0},
      [this](int64_t sum, const Part& part) { return sum + part.rows * row_bytes(part); });
}

at::Tensor read_rows(const BlockLayout& layout, const at::Tensor& data, const at::Tensor& rows) {
  const auto ids = rows.to(at::kCPU, at::kLong).contiguous();
  const auto bytes = data.cpu();
  const auto* const all = static_cast<const std::byte*>(bytes.const_data_ptr());
  const auto out = at::empty({ids.numel(), layout.columns}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < ids.numel(); ++i, to += layout.columns) {
    auto row = ids.const_data_ptr<int64_t>()[i];
    TORCH_CHECK_INDEX(row >= 0 && row < layout.rows(), "embedding: token id ", row,
                      " is not below the vocabulary's size, ", layout.rows());
    const auto* from = all;
    auto part = layout.parts.begin();
    for (; row >= part->rows; row -= part->rows, ++part)
      from += part->rows * layout.row_bytes(*part);
    const auto size = layout.row_bytes(*part);
    dequantize(part->encoding, {from + row * size, static_cast<size_t>(size)},
               {to, static_cast<size_t>(layout.columns)});
  }
  return out.to(data.device(), layout.dtype);
}

at::Tensor read_all(const BlockLayout& layout, const at::Tensor& data) {
  return read_rows(layout, data, at::arange(layout.rows(), at::kLong));
}

}  // namespace gemma
