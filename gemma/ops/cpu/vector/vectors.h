#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <gemma/ops/cpu/kernels.h>

// Vectors of the widest registers that the including file is compiled for.
//
// Everything is in an unnamed namespace, here and in the kernels: a function that the linker could
// share between two such files could run on machines that it was not compiled for. For the same
// reason these files include only the plainest headers.
namespace gemma::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX2__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Words = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Shorts = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using Pairs = int16_t __attribute__((vector_size(kLanes * 2 * sizeof(int16_t))));

template <typename To, typename From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline Floats zeros() { return Floats{}; }

// Has the compiler load a vector once, not with every instruction that takes it.
template <typename Vector>
inline void keep_in_register(Vector& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__SSE2__)
  asm("" : "+x"(v));
#else
  (void)v;
#endif
}

inline Floats load(const float* from) {
  Floats to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

inline Floats to_floats(Ints from) { return __builtin_convertvector(from, Floats); }

// What each instruction set does in its own way: simd_avx512.h, simd_avx2.h, simd_portable.h.

inline Floats splat(float value);

inline Floats load(const BFloat16* from);
inline Floats load(const Float16* from);
inline Floats load(const int8_t* from);
inline Ints load_bytes(const uint8_t* from);
inline Pairs load_pairs(const int8_t* from);
inline Pairs load_pairs(const uint8_t* from);

// a * b + c
inline Floats fma(Floats a, Floats b, Floats c);

// Of two numbers of which one is NaN, b.
inline Floats max(Floats a, Floats b);
inline Floats min(Floats a, Floats b);

inline Floats sqrt(Floats v);

inline float sum(Floats v);

// The same of each vector, with the same bits. Of as many as are faster together there is another.
template <int kCount>
inline void sum_each(const Floats (&v)[kCount], float (&out)[kCount]) {
  for (int i = 0; i < kCount; ++i) out[i] = sum(v[i]);
}

// sum[i] + a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1]
inline Ints add_products(Pairs a, Pairs b, Ints sum);

// kLanes vectors, rows to columns.
inline void transpose(Floats (&v)[kLanes]);

inline Ints load_ints(const int32_t* from) {
  Ints to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

// Numbers of a group of kGroup columns are in kGroupVectors vectors: these are the part-th one's.
constexpr int64_t kGroupVectors = kGroup / (2 * kLanes);

// Of 16 bytes the lower halves, then the upper ones.
inline Pairs load_nibbles(const uint8_t* from, int64_t part);

// The same, as indices of a table.
inline Pairs load_nibbles(const uint8_t* from, const int8_t (&table)[16], int64_t part);

// All bits of a number whose bit is set.
inline Pairs spread_bits(uint32_t bits, int64_t part);

// The first 16 columns have the first pair in each lane, the others the second one.
inline Pairs splat_two(const int32_t* pairs, int64_t part);

inline float to_float(Float16 half);

// The first `count` numbers, kStride bytes from one to the next; others are not used.
template <int64_t kStride>
inline void gather(const std::byte* from, int64_t count, float (&to)[8]);

// kLanes / 4 numbers, each in four lanes.
inline Floats spread(const Float16* from);

// sum[i] + the sum over j in [4 i, 4 i + 4) of the lower half of nibbles[j] times low[j] and its
// upper half times high[j].
inline Ints add_nibble_products(const uint8_t* nibbles,
                                const int8_t* low,
                                const int8_t* high,
                                Ints sum);

}  // namespace
}  // namespace gemma::cpu
