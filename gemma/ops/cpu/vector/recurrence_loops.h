#pragma once

#include <gemma/ops/cpu/vector/simd.h>

// What RecurrentGemma does along a text. Each feature goes its own way, so that vectors are of
// features; tokens come one after another, and a text has the same bits however it is cut.
namespace gemma::cpu {
namespace {

// Calls body(f, load_at, store_at) for the features f, f + 1, … of each vector. The two read and
// write such a vector of floats.
template <typename Body>
void each_vector(int64_t features, const Body& body) {
  int64_t f = 0;
  for (; f + kLanes <= features; f += kLanes) {
    body(
        f, [](const float* from) { return load(from); }, [](float* to, Floats v) { store(to, v); });
  }
  if (f == features) return;
  const auto count = features - f;
  body(
      f, [count](const float* from) { return load_part(from, count); },
      [count](float* to, Floats v) { store_part(to, v, count); });
}

void causal_conv(const float* x,
                 const float* weight,
                 const float* bias,
                 int64_t width,
                 int64_t tokens,
                 int64_t features,
                 float* out) {
  each_vector(features, [&](int64_t f, const auto& load_at, const auto& store_at) {
    const auto added = load_at(bias + f);
    for (int64_t t = 0; t < tokens; ++t) {
      auto sum = zeros();
      // The token's own comes first, as in the reference.
      for (auto k = width - 1; k >= 0; --k) {
        sum = fma(load_at(x + (t + k) * features + f), load_at(weight + k * features + f), sum);
      }
      store_at(out + t * features + f, sum + added);
    }
  });
}

inline Floats sigmoid(Floats x) { return 1.0F / (1.0F + exp(-x)); }

void rg_lru(const RecurrenceBlock& b) {
  each_vector(b.features, [&](int64_t f, const auto& load_at, const auto& store_at) {
    const auto input_bias = load_at(b.input_bias + f);
    const auto a_bias = load_at(b.a_bias + f);
    const auto most = load_at(b.log_a + f);
    auto h = b.begins ? zeros() : load_at(b.state + f);
    for (int64_t t = 0; t < b.tokens; ++t) {
      const auto at = t * b.features + f;
      const auto gated = load_at(b.x + at) * sigmoid(load_at(b.input_gate + at) + input_bias);
      if (b.begins && t == 0) {
        h = gated;
      } else {
        const auto log_a = most * sigmoid(load_at(b.a_gate + at) + a_bias);
        // Rounding may leave e^x above 1 for an x just below 0.
        const auto rest = max(zeros(), 1.0F - exp(log_a * 2.0F));
        h = fma(exp(log_a), h, gated * sqrt(rest));
      }
      store_at(b.out + t * b.ld_out + f, h);
    }
    store_at(b.state + f, h);
  });
}

}  // namespace
}  // namespace gemma::cpu
