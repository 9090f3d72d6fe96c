#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/config/dtype_name.h>
#include <gemma/weights/copy_weight.h>
#include <gemma/weights/row_blocks.h>

namespace gemma {
namespace {

// Whether a finite number of `from` may be infinite in `to`.
bool may_overflow(at::ScalarType from, at::ScalarType to) {
  if (!c10::isFloatingType(from) || from == to) return false;
  return to == at::kHalf || from == at::kDouble;
}

bool is_finite(const at::Tensor& numbers) { return at::isfinite(numbers).all().item<bool>(); }

}  // namespace

void copy_weight(const WeightSource& source, const TensorEntry& entry, const at::Tensor& target) {
  const bool is_checked = may_overflow(entry.dtype, target.scalar_type());
  const auto copy = [&](const at::Tensor& from, const at::Tensor& to) {
    to.copy_(from);
    if (!is_checked || is_finite(to) || !is_finite(from)) return;
    refuse_file(source.file_of(entry.name),
                fmt::format("tensor '{}' has numbers that {} cannot hold; use {}", entry.name,
                            dtype_name(target.scalar_type()),
                            target.scalar_type() == at::kHalf ? "bfloat16 or float32" : "float64"));
  };
  // What stands in blocks is computed by rows: as float32, the whole is many times what the file
  // has.
  const bool is_plain = entry.encoding == Encoding::kPlain;
  const auto whole = is_plain ? source.tensor(entry.name) : at::Tensor();
  if (target.numel() == 0 || target.dim() == 0) {
    copy(is_plain ? whole : source.tensor(entry.name), target);
    return;
  }
  for_row_blocks(is_plain ? whole : target, [&](int64_t first, int64_t count) {
    copy(is_plain ? whole.narrow(0, first, count) : source.rows(entry.name, first, count),
         target.narrow(0, first, count));
    source.release(entry.name);
  });
}

}  // namespace gemma
