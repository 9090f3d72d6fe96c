#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/ops/attention_types.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/cpu/kernels.h>

// The work of CpuOps::attend_segments, divided among threads. Shapes are those of ops.h; `stride`
// is D padded.
namespace gemma {

/// What the attention of a layer computes.
struct Attention {
  HeadShape shape;
  double scaling;
  float softcap;   // 0: none.
  int64_t window;  // 0: none.
  int64_t stride;  // Of a head in q and in the caches.

  int64_t group() const { return shape.num_heads / shape.num_kv_heads; }
  int64_t first_key(int64_t position) const;
};

/// Tokens of a pass, with a cache for each segment and key/value head: caches [segments, K]. All
/// has to outlive the work.
struct AttentionTokens {
  std::span<const Segment> segments;
  const cpu::CacheHead* caches;
  float* q;  // [T, H, stride], scaled.
};

/// Queries, keys and values of tokens, normalised and rotated, the latter two in their caches.
/// qkv [T, (H + 2K) * D], float32.
void prepare_tokens(const Attention& attention,
                    const HeadNorms& norms,
                    const at::Tensor& freqs_cis,
                    const at::Tensor& qkv,
                    const AttentionTokens& tokens);

/// Attention of single tokens, one of each sequence -> out [T, H, D].
void attend_tokens(const Attention& attention, const AttentionTokens& tokens, float* out);

/// Attention of chunks of prompts, in blocks of tokens -> out [T, H, D].
void attend_chunks(const Attention& attention, const AttentionTokens& tokens, float* out);

}  // namespace gemma
