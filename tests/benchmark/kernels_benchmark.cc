// The kernels of gemma/ops/cpu alone, on one thread, at sizes of Gemma 3 1B; sampling on all
// threads.
//   kernels_benchmark --benchmark_filter=few
#include <cstdint>
#include <numeric>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/cpu/kernels.h>

namespace gemma {
namespace {

constexpr int64_t kHidden = 1152;
constexpr int64_t kIntermediate = 6912;
constexpr int64_t kHeads = 4;
constexpr int64_t kHeadDim = 256;
constexpr int64_t kVocabSize = 262'144;
// More than the caches hold in any dtype.
constexpr int64_t kGemmMr = 131'072;

at::Tensor random_floats(at::IntArrayRef sizes) { return at::randn(sizes, at::kFloat); }

WeightView random_weight(int64_t rows, int64_t columns, at::ScalarType dtype) {
  if (dtype == at::kByte) {
    return {at::randint(0, 256, {rows, columns / 2}, at::kByte),
            at::full({rows, columns / WeightView::kGroup}, 0.01, at::kHalf)};
  }
  if (dtype != at::kChar) return random_floats({rows, columns}).to(dtype);
  return {at::randint(-127, 128, {rows, columns}, at::kChar), at::full({rows}, 0.01, at::kFloat)};
}

void set_flops(benchmark::State& state, int64_t flops) {
  state.counters["FLOP/s"] = benchmark::Counter(static_cast<double>(flops * state.iterations()),
                                                benchmark::Counter::kIsRate);
}

const float* floats(const at::Tensor& tensor) { return tensor.const_data_ptr<float>(); }

// The limits: what the others are to be compared with.

void read_memory(benchmark::State& state) {
  constexpr int64_t kSize = kGemmMr * kHidden;
  const auto memory = at::ones({kSize}, at::kChar);
  for (auto _ : state) {
    benchmark::DoNotOptimize(cpu::kernels().read_memory(memory.const_data_ptr(), kSize));
  }
  state.SetBytesProcessed(state.iterations() * kSize);
}
BENCHMARK(read_memory);

void multiply_registers(benchmark::State& state) {
  constexpr int64_t kRounds = 100'000;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cpu::kernels().multiply_registers(kRounds, 0.5F, 1.0F));
  }
  set_flops(state, kRounds * cpu::kernels().probe_flops);
}
BENCHMARK(multiply_registers);

void gemv(benchmark::State& state, at::ScalarType dtype) {
  const auto rows = state.range(0);
  const auto weight = random_weight(kGemmMr, kHidden, dtype);
  const CpuWeight w(weight);
  const auto x = random_floats({rows, kHidden});
  const GemvInput few(floats(x), rows, *w);
  auto y = at::empty({rows, kGemmMr}, at::kFloat);
  // As CpuOps divides it among tasks.
  const auto step = rows_per_task(*w, rows);
  for (auto _ : state) {
    for (int64_t begin = 0; begin < kGemmMr; begin += step) {
      few.multiply(*w, begin, std::min(begin + step, kGemmMr), y.mutable_data_ptr<float>() + begin,
                   kGemmMr);
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weight.data.nbytes()));
}

void gemm(benchmark::State& state, at::ScalarType dtype) {
  const auto rows = state.range(0);
  const auto weight = random_weight(kIntermediate, kHidden, dtype);
  const CpuWeight w(weight);
  const auto x = random_floats({rows, kHidden});
  const GemmInput many(floats(x), rows, *w);
  const auto width = cpu::kernels().gemm_nr;
  auto y = at::empty({rows, kIntermediate}, at::kFloat);
  const Buffer<float> scratch(cpu::kernels().gemm_scratch);
  auto* const out = y.mutable_data_ptr<float>();
  at::set_num_threads(1);
  for (auto _ : state) {
    many.each_task(*w, [&](const cpu::PackedRows& part, int64_t panel, int64_t /*worker*/) {
      cpu::kernels().gemm(part, *w, panel, out + part.begin * kIntermediate + panel * width,
                          kIntermediate, scratch.get());
    });
  }
  set_flops(state, 2 * rows * kHidden * kIntermediate);
}

void rms_norm(benchmark::State& state) {
  const auto x = random_floats({kHidden});
  const CpuWeight weight(random_floats({kHidden}).to(at::kBFloat16));
  auto out = at::empty_like(x);
  for (auto _ : state) {
    cpu::kernels().rms_norm(floats(x), *weight, 1.0F, 1e-6F, nullptr,
                            out.mutable_data_ptr<float>());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(rms_norm);

// A key/value head of so many positions.
struct Cache {
  explicit Cache(int64_t positions, at::ScalarType dtype)
      : k(random_floats({positions, kHeadDim}).to(dtype)),
        v(random_floats({positions, kHeadDim}).to(dtype)),
        blocks(static_cast<size_t>(positions / cpu::kCacheBlock + 1)) {
    std::iota(blocks.begin(), blocks.end(), 0);
  }

  cpu::CacheHead head() {
    return {.k = k.mutable_data_ptr(),
            .v = v.mutable_data_ptr(),
            .type = k.scalar_type() == at::kFloat ? cpu::CacheType::kFloat32
                                                  : cpu::CacheType::kBFloat16,
            .blocks = blocks.data(),
            .first = 0,
            .block_stride = cpu::kCacheBlock * kHeadDim,
            .dim = kHeadDim,
            .stride = kHeadDim};
  }
  int64_t bytes() const { return static_cast<int64_t>(k.nbytes() + v.nbytes()); }

  at::Tensor k, v;
  std::vector<int32_t> blocks;
};

void attend_one(benchmark::State& state, at::ScalarType dtype) {
  const auto length = state.range(0);
  Cache cache(length, dtype);
  const auto q = random_floats({kHeads, kHeadDim}) * 0.05;
  auto out = at::empty_like(q);
  std::vector<cpu::PartialSoftmax> partial(kHeads);
  for (auto _ : state) {
    cpu::kernels().attend_one(floats(q), kHeads, cache.head(), 0, length, 0.0F, partial.data(),
                              out.mutable_data_ptr<float>());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * cache.bytes());
}

void attend_block(benchmark::State& state, at::ScalarType dtype) {
  const auto tokens = cpu::kernels().attend_rows / kHeads;
  const auto length = state.range(0);
  Cache cache(length, dtype);
  const auto q = random_floats({tokens, kHeads, kHeadDim}) * 0.05;
  auto out = at::empty_like(q);
  auto scratch = at::empty({cpu::kernels().attend_scratch(cache.head())}, at::kFloat);
  for (auto _ : state) {
    cpu::kernels().attend_block({.q = floats(q),
                                 .ld_q = kHeads * kHeadDim,
                                 .tokens = tokens,
                                 .heads = kHeads,
                                 .position = length - tokens,
                                 .window = 0,
                                 .softcap = 0.0F,
                                 .out = out.mutable_data_ptr<float>(),
                                 .ld_out = kHeads * kHeadDim},
                                cache.head(), scratch.mutable_data_ptr<float>());
    benchmark::ClobberMemory();
  }
  set_flops(state, 4 * tokens * kHeads * kHeadDim * length);
}

// Logits and choice of a token, greedy or drawn.
void sample(benchmark::State& state, bool sampled) {
  const auto weight = random_weight(kVocabSize, kHidden, at::kBFloat16);
  const auto hidden = random_floats({1, kHidden});
  SamplingParams params{.temperatures = {},
                        .top_ps = at::full({1}, 0.95, at::kFloat),
                        .top_ks = at::full({1}, 64, at::kLong)};
  if (sampled) params.temperatures = at::full({1}, 1.0, at::kFloat);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops_for(Numerics::kFast, at::kCPU)
                                 .sample(hidden, weight, std::nullopt, std::nullopt, params));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weight.data.nbytes()));
}

BENCHMARK_CAPTURE(gemv, float32, at::kFloat)->DenseRange(1, cpu::kGemvRows);
BENCHMARK_CAPTURE(gemv, bfloat16, at::kBFloat16)->DenseRange(1, cpu::kGemvRows);
BENCHMARK_CAPTURE(gemv, float16, at::kHalf)->DenseRange(1, cpu::kGemvRows);
BENCHMARK_CAPTURE(gemv, int8, at::kChar)->DenseRange(1, cpu::kGemvRows);
BENCHMARK_CAPTURE(gemv, int4, at::kByte)->DenseRange(1, cpu::kGemvRows);
BENCHMARK_CAPTURE(gemm, float32, at::kFloat)->Arg(16)->Arg(128)->Arg(512);
BENCHMARK_CAPTURE(gemm, bfloat16, at::kBFloat16)->Arg(16)->Arg(128)->Arg(512);
BENCHMARK_CAPTURE(gemm, int8, at::kChar)->Arg(16)->Arg(128)->Arg(512);
BENCHMARK_CAPTURE(gemm, int4, at::kByte)->Arg(16)->Arg(128)->Arg(512);
BENCHMARK_CAPTURE(attend_one, float32, at::kFloat)->Arg(512)->Arg(16384);
BENCHMARK_CAPTURE(attend_one, bfloat16, at::kBFloat16)->Arg(512)->Arg(16384);
BENCHMARK_CAPTURE(attend_block, float32, at::kFloat)->Arg(512)->Arg(4096);
BENCHMARK_CAPTURE(attend_block, bfloat16, at::kBFloat16)->Arg(512)->Arg(4096);
BENCHMARK_CAPTURE(sample, greedy, false)->UseRealTime();
BENCHMARK_CAPTURE(sample, sampled, true)->UseRealTime();

}  // namespace
}  // namespace gemma

BENCHMARK_MAIN();
