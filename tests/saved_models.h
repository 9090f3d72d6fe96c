#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <gemma/generate/causal_lm.h>
#include <gemma/weights/weights.h>

// Models with contents, and the checkpoints that torch.save would make of them.
namespace gemma::testing {

/// A tiny Gemma 3 whose weights follow from the seed.
GemmaForCausalLM random_gemma3(uint64_t seed,
                               bool quant = false,
                               torch::Dtype dtype = torch::kFloat);

/// What torch.save writes for a dict of these, under 'model_state_dict' or bare as in a shard.
std::string saved(const StateDict& tensors, bool bare = false);

/// The state of a model, with tensors of its own.
StateDict copy_of(const torch::nn::Module& module);

/// Throws std::out_of_range when there is none.
at::Tensor& at_name(StateDict& tensors, std::string_view name);

void rename(StateDict& tensors, std::string_view from, std::string_view to);

/// Takes out every tensor that has `part` in its name.
void drop(StateDict& tensors, std::string_view part);

/// A failed test unless the state of `module` has the names and values of `want`.
void expect_state(const torch::nn::Module& module, const StateDict& want);

/// A module whose tensors have to stay what and where they are, for as long as this object lives.
class Unchanged {
 public:
  explicit Unchanged(const torch::nn::Module& module);
  ~Unchanged();
  Unchanged(const Unchanged&) = delete;
  Unchanged& operator=(const Unchanged&) = delete;

 private:
  const torch::nn::Module& module_;
  StateDict want_;
  std::vector<void*> data_;
};

}  // namespace gemma::testing
