#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <gemma/models/engine_model.h>

namespace gemma::cli {

/// What is timed: a prompt up to its first token, or tokens one by one.
struct BenchCase {
  enum class Kind { kPrefill, kDecode, kSampledDecode };

  Kind kind;
  int64_t tokens;
  int64_t depth;      // Tokens in the cache before.
  int64_t batch = 1;  // Texts that are continued together.

  bool is_prefill() const { return kind == Kind::kPrefill; }
  bool is_sampled() const { return kind == Kind::kSampledDecode; }
  bool is_batch() const { return batch > 1; }
  /// "pp512", "tg128 @ d16384", "tg128 sampled", "tg128 x 8".
  std::string name() const;
};

/// One run of a test.
struct BenchRun {
  double seconds;
  /// Of keys and values, as they are in memory: whole blocks. None in exact numerics.
  std::optional<int64_t> kv_bytes = std::nullopt;
};

/// A function that runs the test once, on random tokens. Fast numerics run on a
/// ModelRunner with keys and values of kv_dtype, exact ones through the dense forward; each as
/// generate() does. Filling the cache to the test's depth happens here. Throws
/// std::invalid_argument when the test exceeds the model's max_position_embeddings.
std::function<BenchRun()> prepare(const BenchCase& test,
                                  const EngineModel& model,
                                  torch::Dtype kv_dtype);

}  // namespace gemma::cli
