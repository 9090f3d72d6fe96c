#include <algorithm>
#include <utility>

#include <gemma/generate/continuations.h>

namespace gemma {

Continuations::Continuations(std::vector<int64_t> prompt_lens,
                             std::vector<int64_t> output_lens,
                             int64_t eos_id,
                             const GenerateOptions& options)
    : prompt_lens_(std::move(prompt_lens)),
      output_lens_(std::move(output_lens)),
      eos_id_(eos_id),
      options_(options),
      texts_(prompt_lens_.size()),
      ended_(prompt_lens_.size()) {
  for (size_t i = 0; i < ended_.size(); ++i) ended_[i] = output_lens_[i] == 0;
}

bool Continuations::wants(int64_t row, int64_t index) const {
  return !ended_[row] && index >= prompt_lens_[row];
}

void Continuations::add(int64_t row, int64_t token) {
  if (token == eos_id_ || std::ranges::count(options_.stop_ids, token) > 0) {
    ended_[row] = true;
    return;
  }
  texts_[row].push_back(token);
  ended_[row] = std::ssize(texts_[row]) == output_lens_[row];
  if (options_.on_token) options_.on_token(row, token);
}

bool Continuations::all_ended() const {
  return std::ranges::all_of(ended_, [](bool ended) { return ended; });
}

}  // namespace gemma
