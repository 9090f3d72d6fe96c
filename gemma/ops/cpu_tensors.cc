#include <algorithm>

#include <ATen/ops/empty.h>

#include <gemma/ops/cpu_tensors.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

cpu::WeightType weight_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return cpu::WeightType::kFloat32;
    case at::kBFloat16:
      return cpu::WeightType::kBFloat16;
    case at::kHalf:
      return cpu::WeightType::kFloat16;
    case at::kChar:
      return cpu::WeightType::kInt8;
    case at::kByte:
      return cpu::WeightType::kInt4;
    default:
      TORCH_CHECK(false, "fast numerics: a weight is ", dtype,
                  ", but must be float32, bfloat16, float16, int8, or 4 bits in uint8");
  }
}

void check_device(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu(), "fast numerics: a tensor is on ", tensor.device(),
              ", but they compute on the CPU only; set_numerics(\"exact\") runs anywhere");
}

}  // namespace

at::Tensor as_rows(const at::Tensor& x) {
  check_device(x);
  return x.to(at::kFloat).contiguous();
}

MatrixTensor::MatrixTensor(const Weight& weight) : data_(weight.data.contiguous()) {
  check_device(data_);
  const auto type = weight_type(data_.scalar_type());
  const auto columns = data_.size(-1);
  matrix_ = {.data = data_.const_data_ptr(),
             .type = type,
             .scales = nullptr,
             .rows = columns == 0 ? 0 : data_.numel() / columns,
             .columns = columns};
  if (type == cpu::WeightType::kInt4) {
    check_device(weight.scaler);
    matrix_.columns = 2 * columns;
    scales_ = weight.scaler.to(at::kHalf).contiguous();
    TORCH_CHECK(matrix_.columns % cpu::kGroup == 0 &&
                    scales_.numel() == matrix_.rows * matrix_.columns / cpu::kGroup,
                "fast numerics: a 4-bit weight is ", data_.sizes(), " with scales ",
                scales_.sizes(), ", but wants a scale for each ", cpu::kGroup, " numbers");
    matrix_.group_scales = static_cast<const cpu::Float16*>(scales_.const_data_ptr());
  } else if (weight.quantized()) {
    scales_ = as_rows(weight.scaler);
    matrix_.scales = scales_.const_data_ptr<float>();
  }
}

FewRows::FewRows(const float* x, int64_t rows, const cpu::Matrix& w) : x_(x), rows_(rows) {
  if (w.type != cpu::WeightType::kInt4) return;
  const auto groups = w.columns / cpu::kGroup;
  values_ = at::empty({rows, w.columns}, at::kChar);
  scales_ = at::empty({rows, groups}, at::kFloat);
  offsets_ = at::empty({rows, groups}, at::kFloat);
  for (int64_t i = 0; i < rows; ++i) {
    cpu::kernels().quantize_row(x + i * w.columns, w.columns,
                                values_.mutable_data_ptr<int8_t>() + i * w.columns,
                                scales_.mutable_data_ptr<float>() + i * groups,
                                offsets_.mutable_data_ptr<float>() + i * groups);
  }
}

void FewRows::multiply(
    const cpu::Matrix& w, int64_t begin, int64_t end, float* y, int64_t ldy) const {
  if (w.type != cpu::WeightType::kInt4) {
    cpu::kernels().multiply_few(x_, rows_, w, begin, end, y, ldy);
    return;
  }
  const cpu::Int8Rows rows{values_.const_data_ptr<int8_t>(), scales_.const_data_ptr<float>(),
                           offsets_.const_data_ptr<float>()};
  cpu::kernels().multiply_int4(rows, rows_, w, begin, end, y, ldy);
}

Scratch::Scratch(int64_t size)
    : size_(cpu::round_up(size, 16)), memory_(at::empty({num_workers() * size_}, at::kFloat)) {}

float* Scratch::of(int64_t worker) const {
  return memory_.mutable_data_ptr<float>() + worker * size_;
}

at::Tensor pack(const float* x, int64_t rows, int64_t columns) {
  auto packed = at::empty({cpu::packed_size(rows, columns)}, at::kFloat);
  auto* const to = packed.mutable_data_ptr<float>();
  const auto groups = cpu::round_up(rows, cpu::kPackedRows) / cpu::kPackedRows;
  parallel_for(groups, [&](int64_t group, int64_t /*worker*/) {
    cpu::kernels().pack_rows(x, rows, columns, group, to);
  });
  return packed;
}

int64_t rows_per_task(const cpu::Matrix& w) {
  constexpr int64_t kTasksPerWorker = 4;
  constexpr int64_t kLeast = 32;
  constexpr int64_t kMost = 2048;
  return std::clamp(cpu::round_up(w.rows / (num_workers() * kTasksPerWorker), 4), kLeast, kMost);
}

void multiply(const float* x, int64_t rows, const cpu::Matrix& w, float* y) {
  const auto& kernels = cpu::kernels();
  if (rows <= cpu::kFewRows) {
    const auto step = rows_per_task(w);
    const FewRows few(x, rows, w);
    parallel_for(cpu::round_up(w.rows, step) / step, [&](int64_t task, int64_t /*worker*/) {
      const auto begin = task * step;
      few.multiply(w, begin, std::min(begin + step, w.rows), y + begin, w.rows);
    });
    return;
  }
  const auto packed = pack(x, rows, w.columns);
  const auto* const from = packed.const_data_ptr<float>();
  const Scratch scratch(2 * kernels.panel_rows * cpu::kPackedColumns);
  const auto panels = cpu::round_up(w.rows, kernels.panel_rows) / kernels.panel_rows;
  parallel_for(panels, [&](int64_t panel, int64_t worker) {
    kernels.multiply_many(from, rows, w, panel, y + panel * kernels.panel_rows, w.rows,
                          scratch.of(worker));
  });
}

}  // namespace gemma
