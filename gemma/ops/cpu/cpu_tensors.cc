#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

// Rows that one thread prepares sooner than it wakes the others.
constexpr int64_t kRowsAlone = 32;

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

// Kernels keep nothing for a backward pass.
void check_tensor(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu(), "fast numerics: a tensor is on ", tensor.device(),
              ", but they compute on the CPU only; set_numerics(\"exact\") runs anywhere");
  TORCH_CHECK(!(tensor.requires_grad() && at::GradMode::is_enabled()),
              "fast numerics: a tensor requires a gradient, which kernels do not give; use "
              "set_numerics(\"exact\"), or torch.no_grad()");
}

int64_t bits_of(cpu::WeightType type) {
  switch (type) {
    case cpu::WeightType::kFloat32:
      return 32;
    case cpu::WeightType::kBFloat16:
    case cpu::WeightType::kFloat16:
      return 16;
    case cpu::WeightType::kInt8:
      return 8;
    case cpu::WeightType::kInt4:
      return 4;
    case cpu::WeightType::kBlocks:
      return 6;  // Some 4 to 8.
  }
  return 32;
}

// y[i] += x for the rows of y, `ld` apart.
void add_to_rows(float* y, int64_t ld, int64_t rows, const float* x, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) y[i * ld + j] += x[j];
  }
}

}  // namespace

at::Tensor in_dtype(const at::Tensor& x, at::ScalarType dtype) {
  return x.scalar_type() == dtype ? x : x.to(dtype);
}

at::Tensor as_rows(const at::Tensor& x) {
  check_tensor(x);
  return in_dtype(x, at::kFloat).contiguous();
}

int64_t row_count(const at::Tensor& x) {
  return c10::multiply_integers(x.sizes().slice(0, x.dim() - 1));
}

CpuWeight::CpuWeight(const WeightView& weight) : data_(weight.data.contiguous()) {
  check_tensor(data_);
  if (weight.blocks) {
    take_blocks(*weight.blocks);
    return;
  }
  const auto type = weight_type(data_.scalar_type());
  const auto columns = data_.size(-1);
  matrix_ = {.data = data_.const_data_ptr(),
             .type = type,
             .scales = nullptr,
             .rows = row_count(data_),
             .columns = columns};
  if (type == cpu::WeightType::kInt4) {
    check_tensor(weight.scales);
    matrix_.columns = 2 * columns;
    scales_ = in_dtype(weight.scales, at::kHalf).contiguous();
    TORCH_CHECK(matrix_.columns % cpu::kGroup == 0 &&
                    scales_.numel() == matrix_.rows * matrix_.columns / cpu::kGroup,
                "fast numerics: a 4-bit weight is ", data_.sizes(), " with scales ",
                scales_.sizes(), ", but wants a scale for each ", cpu::kGroup, " numbers");
    matrix_.group_scales = static_cast<const cpu::Float16*>(scales_.const_data_ptr());
  } else if (weight.quantized()) {
    check_tensor(weight.scales);
    scales_ = weight.scales.contiguous();
    TORCH_CHECK(scales_.numel() == matrix_.rows && scales_.is_floating_point(),
                "fast numerics: an int8 weight is ", data_.sizes(), " with scales ",
                scales_.sizes(), " of ", scales_.scalar_type(), ", but wants a float for each row");
    matrix_.scales = scales_.const_data_ptr();
    matrix_.scale_type = weight_type(scales_.scalar_type());
  }
}

void CpuWeight::take_blocks(const BlockLayout& layout) {
  TORCH_CHECK(data_.numel() == layout.bytes(), "fast numerics: a weight in blocks has ",
              data_.numel(), " bytes, but its layout says ", layout.bytes());
  const auto* from = static_cast<const std::byte*>(data_.const_data_ptr());
  int64_t row = 0;
  for (const auto& part : layout.parts) {
    blocks_.push_back({from, part.encoding, row, row + part.rows});
    from += part.rows * layout.row_bytes(part);
    row += part.rows;
  }
  matrix_ = {.data = nullptr,
             .type = cpu::WeightType::kBlocks,
             .scales = nullptr,
             .rows = row,
             .columns = layout.columns,
             .blocks = blocks_.data(),
             .block_parts = static_cast<int64_t>(blocks_.size())};
}

GemvInput::GemvInput(const float* x, int64_t rows, const cpu::WeightView& w)
    : rows_(rows), packed_(cpu::kernels().gemv_size(rows, w.columns, w.type)) {
  const auto& kernels = cpu::kernels();
  const auto pack = [&](int64_t group, int64_t /*worker*/) {
    kernels.gemv_pack(x, rows, w.columns, group, w.type, packed_.get());
  };
  const auto groups = cpu::round_up(rows, kernels.gemv_mr) / kernels.gemv_mr;
  if (rows > kRowsAlone) {
    parallel_for(groups, pack);
  } else {
    for (int64_t group = 0; group < groups; ++group) pack(group, 0);
  }
}

void GemvInput::multiply(
    const cpu::WeightView& w, int64_t begin, int64_t end, float* y, int64_t ldy) const {
  cpu::kernels().gemv(packed_.get(), rows_, w, begin, end, y, ldy);
}

GemmInput::GemmInput(const float* x, int64_t rows, const cpu::WeightView& w)
    : rows_(rows), packed_(cpu::kernels().packed_size(rows, w.columns, w.type)) {
  const auto& kernels = cpu::kernels();
  parallel_for(cpu::round_up(rows, kernels.gemm_mr) / kernels.gemm_mr,
               [&](int64_t group, int64_t /*worker*/) {
                 kernels.pack(x, rows, w.columns, group, w.type, packed_.get());
               });
}

int64_t GemmInput::task_rows(const cpu::WeightView& w) const {
  constexpr int64_t kTasksPerWorker = 3;
  // For fewer rows packing a panel of weights costs more than it saves.
  constexpr int64_t kLeast = 64;
  const auto& kernels = cpu::kernels();
  const auto panels = cpu::round_up(w.rows, kernels.gemm_nr) / kernels.gemm_nr;
  const auto parts =
      std::max<int64_t>(1, num_workers() * kTasksPerWorker / std::max<int64_t>(1, panels));
  const auto rows = std::clamp((rows_ + parts - 1) / parts, kLeast, kernels.gemm_mc);
  return cpu::round_up(std::min(rows, rows_), kernels.gemm_mr);
}

void GemmInput::each_task(
    const cpu::WeightView& w,
    c10::function_ref<void(const cpu::PackedRows&, int64_t, int64_t)> work) const {
  const auto gemm_nr = cpu::kernels().gemm_nr;
  const auto panels = cpu::round_up(w.rows, gemm_nr) / gemm_nr;
  const auto step = task_rows(w);
  parallel_for(panels * (cpu::round_up(rows_, step) / step), [&](int64_t task, int64_t worker) {
    const auto begin = task / panels * step;
    work({packed_.get(), rows_, begin, std::min(begin + step, rows_)}, task % panels, worker);
  });
}

void each_row(int64_t rows, c10::function_ref<void(int64_t, int64_t)> body) {
  if (rows > kRowsAlone) return parallel_for(rows, body);
  for (int64_t i = 0; i < rows; ++i) body(i, 0);
}

Scratch::Scratch(int64_t size) : size_(cpu::round_up(size, 16)), memory_(num_workers() * size_) {}

bool by_rows(Pass pass, int64_t rows) {
  return pass == Pass::kDecode || (pass == Pass::kAny && rows <= cpu::kGemvRows);
}

int64_t rows_per_task(const cpu::WeightView& w, int64_t rows) {
  constexpr int64_t kTasksPerWorker = 4;
  const auto unit = cpu::kernels().gemv_nr;
  const auto least = cpu::round_up(32, unit);
  auto most = 2048 / unit * unit;
  if (rows > cpu::kGemvRows) {
    // Of weights that are read again for the next rows of activations.
    constexpr int64_t kBytes = 1 << 20;
    const auto bytes = std::max<int64_t>(1, w.columns * bits_of(w.type) / 8);
    most = std::clamp(kBytes / bytes / unit * unit, least, most);
  }
  return std::clamp(cpu::round_up(w.rows / (num_workers() * kTasksPerWorker), unit), least, most);
}

void multiply(const float* x, int64_t rows, const cpu::WeightView& w, Pass pass, float* y) {
  const auto& kernels = cpu::kernels();
  // Kernels initialise the sums at the first column.
  if (w.columns == 0) {
    std::fill_n(y, rows * w.rows, 0.0F);
    return;
  }
  if (by_rows(pass, rows)) {
    const auto step = rows_per_task(w, rows);
    const GemvInput few(x, rows, w);
    parallel_for(cpu::round_up(w.rows, step) / step, [&](int64_t task, int64_t /*worker*/) {
      const auto begin = task * step;
      few.multiply(w, begin, std::min(begin + step, w.rows), y + begin, w.rows);
    });
    return;
  }
  const GemmInput many(x, rows, w);
  const Scratch scratch(kernels.gemm_scratch);
  many.each_task(w, [&](const cpu::PackedRows& part, int64_t panel, int64_t worker) {
    kernels.gemm(part, w, panel, y + part.begin * w.rows + panel * kernels.gemm_nr, w.rows,
                 scratch.of(worker));
  });
}

at::Tensor biased_product(const at::Tensor& x, const BiasedWeight& linear, Pass pass) {
  const auto from = as_rows(x);
  const CpuWeight w(linear.weight);
  TORCH_CHECK(from.size(-1) == w->columns, "biased_linear: x is ", x.sizes(),
              ", but the weight takes ", w->columns, " features");
  auto sizes = from.sizes().vec();
  sizes.back() = w->rows;
  auto out = at::empty(sizes, at::kFloat);
  multiply(from.const_data_ptr<float>(), row_count(from), *w, pass, out.mutable_data_ptr<float>());
  if (linear.bias.defined()) out.add_(linear.bias);
  return out;
}

void multiply_gated(const float* x, int64_t rows, const GateAndUp& weights, Pass pass, float* act) {
  const auto& kernels = cpu::kernels();
  const auto& gate = weights.gate;
  const auto& up = weights.up;
  const auto width = gate.rows;
  // Of the outputs [begin, begin + columns).
  const auto finish = [&](float* gates, float* ups, int64_t ld_ups, int64_t begin, int64_t of_rows,
                          int64_t columns) {
    const auto add = [&](float* to, int64_t ld, const float* bias) {
      if (bias != nullptr) add_to_rows(to, ld, of_rows, bias + begin, columns);
    };
    add(gates, width, weights.gate_bias);
    add(ups, ld_ups, weights.up_bias);
    kernels.geglu(gates, width, ups, ld_ups, of_rows, columns);
  };
  if (gate.columns == 0) {
    std::fill_n(act, rows * width, 0.0F);
    return;
  }
  if (gate.type != up.type) {
    const Buffer<float> ups(rows * width);
    multiply(x, rows, gate, pass, act);
    multiply(x, rows, up, pass, ups.get());
    finish(act, ups.get(), width, 0, rows, width);
    return;
  }
  if (by_rows(pass, rows)) {
    const auto step = rows_per_task(gate, rows);
    const Scratch scratch(rows * step);
    const GemvInput few(x, rows, gate);
    parallel_for(cpu::round_up(width, step) / step, [&](int64_t task, int64_t worker) {
      const auto begin = task * step;
      const auto end = std::min(begin + step, width);
      few.multiply(gate, begin, end, act + begin, width);
      few.multiply(up, begin, end, scratch.of(worker), step);
      finish(act + begin, scratch.of(worker), step, begin, rows, end - begin);
    });
    return;
  }
  const GemmInput many(x, rows, gate);
  const auto step = kernels.gemm_nr;
  const Scratch scratch(kernels.gemm_scratch + many.task_rows(gate) * step);
  many.each_task(gate, [&](const cpu::PackedRows& part, int64_t panel, int64_t worker) {
    auto* const memory = scratch.of(worker);
    auto* const ups = memory + kernels.gemm_scratch;
    auto* const out = act + part.begin * width + panel * step;
    kernels.gemm(part, gate, panel, out, width, memory);
    kernels.gemm(part, up, panel, ups, step, memory);
    finish(out, ups, step, panel * step, part.end - part.begin,
           std::min(step, width - panel * step));
  });
}

cpu::WeightView rows_of(const cpu::WeightView& w, int64_t begin, int64_t count) {
  TORCH_CHECK(cpu::is_float(w.type), "fast numerics: a stack of weights is not of floats");
  auto part = w;
  part.data = static_cast<const std::byte*>(w.data) + begin * w.columns * bits_of(w.type) / 8;
  part.rows = count;
  return part;
}

}  // namespace gemma
