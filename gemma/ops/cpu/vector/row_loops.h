#pragma once

#include <gemma/ops/cpu/vector/block_loops.h>
#include <gemma/ops/cpu/vector/int4_loops.h>
#include <gemma/ops/cpu/vector/simd.h>

// Loops over rows of numbers: reading, norms, activations, the search among logits.
namespace gemma::cpu {
namespace {

template <typename T>
void read_row_as(const T* row, int64_t columns, float scale, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) store(out + i, load(row + i) * scale);
  if (i < columns) store_part(out + i, load_part(row + i, columns - i) * scale, columns - i);
}

void read_row(const WeightView& w, int64_t row, float* out) {
  if (w.type == WeightType::kInt4) return read_int4(w, row, 0, w.columns, out);
  if (w.type == WeightType::kBlocks) return read_blocks(w, row, 0, w.columns, out);
  const auto read = [&](const auto* data, float scale) {
    read_row_as(data + row * w.columns, w.columns, scale, out);
  };
  if (w.type == WeightType::kInt8)
    return read(static_cast<const int8_t*>(w.data), row_scale(w, row));
  visit_floats(w, [&](const auto* data) { read(data, 1.0F); });
}

template <typename T>
void rms_norm_as(const float* x,
                 const T* weight,
                 float offset,
                 float eps,
                 const float* residual,
                 int64_t size,
                 float* out) {
  // As many sums as hide how long each addition takes.
  constexpr int64_t kSums = 4;
  Floats squares[kSums] = {};
  const auto add = [&](int64_t s, Floats v) { squares[s] = fma(v, v, squares[s]); };
  int64_t i = 0;
  for (; i + kSums * kLanes <= size; i += kSums * kLanes) {
    for (int64_t s = 0; s < kSums; ++s) add(s, load(x + i + s * kLanes));
  }
  for (; i + kLanes <= size; i += kLanes) add(0, load(x + i));
  if (i < size) add(0, load_part(x + i, size - i));
  const auto total = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const auto scale = 1.0F / __builtin_sqrtf(total / static_cast<float>(size) + eps);
  for (i = 0; i + kLanes <= size; i += kLanes) {
    const auto normed = load(x + i) * scale * (load(weight + i) + offset);
    store(out + i, residual == nullptr ? normed : load(residual + i) + normed);
  }
  if (i < size) {
    const auto count = size - i;
    auto normed = load_part(x + i, count) * scale * (load_part(weight + i, count) + offset);
    if (residual != nullptr) normed += load_part(residual + i, count);
    store_part(out + i, normed, count);
  }
}

void rms_norm(const float* x,
              const WeightView& weight,
              float offset,
              float eps,
              const float* residual,
              float* out) {
  visit_floats(weight, [&](const auto* data) {
    rms_norm_as(x, data, offset, eps, residual, weight.columns, out);
  });
}

void geglu(
    float* gate, int64_t ld_gate, const float* up, int64_t ld_up, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    auto* const g = gate + r * ld_gate;
    const auto* const u = up + r * ld_up;
    int64_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) store(g + i, gelu_tanh(load(g + i)) * load(u + i));
    if (i < columns) {
      const auto count = columns - i;
      store_part(g + i, gelu_tanh(load_part(g + i, count)) * load_part(u + i, count), count);
    }
  }
}

float finish_logits(float* x, int64_t size, float cap, float temperature) {
  const auto finish = [&](Floats v) {
    if (cap != 0.0F) v = tanh(v / cap) * cap;
    return temperature == 1.0F ? v : v / temperature;
  };
  auto highest = splat(-__builtin_inff());
  auto nothing = zeros();  // NaN from NaN and infinities.
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const auto v = finish(load(x + i));
    store(x + i, v);
    highest = max(v, highest);
    nothing = fma(v, zeros(), nothing);
  }
  auto peak = largest(highest);
  auto excess = sum(nothing);
  if (i < size) store_part(x + i, finish(load_part(x + i, size - i)), size - i);
  for (; i < size; ++i) {
    peak = x[i] > peak ? x[i] : peak;
    excess += x[i] * 0.0F;
  }
  return peak + excess;
}

int64_t argmax(const float* x, int64_t size) {
  // Whole vectors first: is there anything above the best so far?
  float best = x[0];
  int64_t where = 0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    const auto a = max(load(x + i), load(x + i + kLanes));
    const auto b = max(load(x + i + 2 * kLanes), load(x + i + 3 * kLanes));
    const auto peak = largest(max(a, b));
    if (!(peak > best)) continue;
    for (auto j = i; j < i + 4 * kLanes; ++j) {
      if (x[j] > best) {
        best = x[j];
        where = j;
      }
    }
  }
  for (; i < size; ++i) {
    if (x[i] > best) {
      best = x[i];
      where = i;
    }
  }
  return where;
}

double sum_exp(const float* x, int64_t size, float temperature, float highest) {
  const auto scaled = [=](Floats v) { return temperature == 1.0F ? v : v / temperature; };
  double total = 0.0;
  int64_t i = 0;
  while (i + kLanes <= size) {
    // Short runs in float32, their sums in float64: no run is long enough to lose a digit.
    constexpr int64_t kRun = 64 * kLanes;
    const auto end = i + kRun < size ? i + kRun : size;
    auto run = zeros();
    for (; i + kLanes <= end; i += kLanes) run += exp(scaled(load(x + i)) - highest);
    total += sum(run);
  }
  for (; i < size; ++i) total += exp(scaled(splat(x[i])) - highest)[0];
  return total;
}

// MT19937: Matsumoto and Nishimura, 1998. Each word depends on words 624, 623 and 227 before it, so
// that a vector of them can be made at once.
void twist(uint32_t* words, int64_t count) {
  const auto next = [](auto oldest, auto second, auto middle) {
    const auto mixed = (oldest & 0x80000000U) | (second & 0x7fffffffU);
    return middle ^ (mixed >> 1) ^ (-(mixed & 1U) & 0x9908b0dfU);
  };
  int64_t i = 624;
  for (; i + kLanes <= count; i += kLanes) {
    Words oldest, second, middle;
    std::memcpy(&oldest, words + i - 624, sizeof(oldest));
    std::memcpy(&second, words + i - 623, sizeof(second));
    std::memcpy(&middle, words + i - 227, sizeof(middle));
    const auto made = next(oldest, second, middle);
    std::memcpy(words + i, &made, sizeof(made));
  }
  for (; i < count; ++i) words[i] = next(words[i - 624], words[i - 623], words[i - 227]);
}

}  // namespace
}  // namespace gemma::cpu
