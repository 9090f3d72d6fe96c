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
    default:
      TORCH_CHECK(false, "fast numerics: a weight is ", dtype,
                  ", but must be float32, bfloat16, float16 or int8");
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
  if (weight.quantized()) scales_ = as_rows(weight.scaler);
  const auto columns = data_.size(-1);
  matrix_ = {data_.const_data_ptr(), weight_type(data_.scalar_type()),
             weight.quantized() ? scales_.const_data_ptr<float>() : nullptr,
             columns == 0 ? 0 : data_.numel() / columns, columns};
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
    parallel_for(cpu::round_up(w.rows, step) / step, [&](int64_t task, int64_t /*worker*/) {
      const auto begin = task * step;
      kernels.multiply_few(x, rows, w, begin, std::min(begin + step, w.rows), y + begin, w.rows);
    });
    return;
  }
  const auto packed = pack(x, rows, w.columns);
  const auto* const from = packed.const_data_ptr<float>();
  const Scratch scratch(kernels.panel_rows * cpu::kPackedColumns);
  const auto panels = cpu::round_up(w.rows, kernels.panel_rows) / kernels.panel_rows;
  parallel_for(panels, [&](int64_t panel, int64_t worker) {
    kernels.multiply_many(from, rows, w, panel, y + panel * kernels.panel_rows, w.rows,
                          scratch.of(worker));
  });
}

}  // namespace gemma
