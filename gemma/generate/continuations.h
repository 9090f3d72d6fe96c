#pragma once

#include <cstdint>
#include <vector>

#include <gemma/generate/options.h>

namespace gemma {

/// The texts that a generation makes, as they grow: which of them still want tokens.
class Continuations {
 public:
  /// Texts of at most that many tokens after prompts of these lengths, up to before `eos_id` or one
  /// of options.stop_ids. `options` has to outlive this.
  Continuations(std::vector<int64_t> prompt_lens,
                std::vector<int64_t> output_lens,
                int64_t eos_id,
                const GenerateOptions& options);

  int64_t size() const { return static_cast<int64_t>(texts_.size()); }

  /// Whether the text of `row` takes the token at `index`, counted from the prompt's first.
  bool wants(int64_t row, int64_t index) const;

  /// That token. Calls options.on_token unless it ends the text.
  void add(int64_t row, int64_t token);

  bool all_ended() const;

  const std::vector<std::vector<int64_t>>& texts() const { return texts_; }

 private:
  std::vector<int64_t> prompt_lens_, output_lens_;
  int64_t eos_id_;
  const GenerateOptions& options_;
  std::vector<std::vector<int64_t>> texts_;
  std::vector<bool> ended_;
};

}  // namespace gemma
