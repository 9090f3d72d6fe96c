#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <gemma/ops/exponential_draws.h>

// Choosing a token from logits in float32 on the CPU.
namespace gemma {

/// The logits of one token, and the largest of each block of them: finding the largest ones need
/// not read all of them again.
class LogitsRow {
 public:
  static constexpr int64_t kBlock = 256;

  /// How many tokens may be drawn: the likeliest ones, as the reference cuts them.
  struct Cut {
    float top_p = 1.0F;  // Their probabilities before the last one sum to no more than this.
    int64_t top_k = 0;   // 0: any number.
    float min_p = 0.0F;  // Each is at least so much of the likeliest one's.
  };

  /// As `finish` leaves them; `temperature` divides the logits where probabilities are asked for.
  LogitsRow(std::span<float> logits, std::span<float> peaks, float temperature = 1.0F)
      : logits_(logits), peaks_(peaks), temperature_(temperature) {}

  /// Of a vocabulary's size.
  static int64_t blocks(int64_t size) { return (size + kBlock - 1) / kBlock; }

  /// Caps rows of logits [rows, size] softly (0: not), divides each by its temperature, and finds
  /// the peaks [rows, blocks(size)]. A peak is NaN where a logit is NaN or infinite.
  static void finish(float* logits,
                     int64_t rows,
                     int64_t size,
                     float softcap,
                     std::span<const float> temperatures,
                     float* peaks);

  std::span<float> logits() const { return logits_; }

  /// Sets a logit. Its block's peak has to be found anew afterwards.
  void set(int64_t token, float logit) { logits_[static_cast<size_t>(token)] = logit; }
  void find_peak(int64_t block);

  /// The largest logit; NaN if one is NaN or was infinite.
  float highest() const;

  /// The first of the largest.
  int64_t argmax() const;

  /// Tokens of the `count` largest logits, largest first, lower tokens first among equals.
  std::vector<int64_t> top(int64_t count) const;

  /// Sum of e^(logit - highest), the same for any number of threads.
  double total() const;

  /// A token drawn as at::multinomial does from probabilities so cut: each divided by an
  /// exponential draw, the largest wins. The token's own is draws.at(first_draw + token).
  int64_t draw(const Cut& cut, const ExponentialDraws& draws, int64_t first_draw) const;

 private:
  // Tokens that may be drawn, and their probabilities, which sum to `sum`.
  struct Candidates {
    std::vector<int64_t> tokens;
    std::vector<float> probs;
    double sum = 0.0;
  };
  Candidates likeliest(const Cut& cut) const;
  Candidates all() const;

  float scaled(int64_t token) const { return logits_[static_cast<size_t>(token)] / temperature_; }

  std::span<float> logits_;
  std::span<float> peaks_;
  float temperature_;
};

}  // namespace gemma
