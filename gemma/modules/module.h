#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <gemma/modules/taps.h>
#include <gemma/modules/use_lock.h>
#include <gemma/ops/numerics.h>

namespace gemma {

class Ops;

/// After each of a model's layers: how many are done, of how many. What it throws ends the
/// computation.
using LayerCallback = std::function<void(int64_t done, int64_t total)>;

/// Base of every module here: torch::nn::Module, plus the choice of numerics and taps. `to`,
/// set_numerics, add_taps, remove_taps, load_weights and load_state_dict wait until no thread
/// computes with the model any more; see UseLock for what they throw.
class Module : public torch::nn::Module {
 public:
  Module();

  /// How this module and all below it compute from now on. Throws std::invalid_argument when their
  /// device does not have such numerics, or there are taps inside of operations, which only exact
  /// ones serve.
  void set_numerics(Numerics numerics);
  Numerics numerics() const;

  using torch::nn::Module::to;
  /// Throws std::invalid_argument for the meta device, and for one that does not have the numerics.
  void to(torch::Device device, bool non_blocking = false) override;
  /// Casts floating-point parameters only.
  // Differs from model.py: there the complex rope tables are cast too, and lose their imaginary
  // part. (torch::nn::Module::to would cast int8 weights as well.)
  void to(torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;

  /// From now on the taps' functions are called with the values at points of this module and of all
  /// below it, in the order of the taps. Where there is none, nothing changes. Throws
  /// std::invalid_argument, before anything is added, when no point fits a tap, or one that fits is
  /// inside of an operation and numerics are fast.
  TapHandle add_taps(const std::vector<Tap>& taps);
  /// Ends those that add_taps added, on this module or one below it.
  void remove_taps(const TapHandle& handle);
  /// The names of each point of this module and of all below it. The first is the module's path and
  /// the point's own ("layers.0.mlp.hook_out"), others are those of other_names.
  std::vector<std::vector<std::string>> tap_names();

  /// Whether a point of this module has a tap: if not, it computes as it does without taps.
  bool is_tapped() const { return taps_ != nullptr; }
  bool is_tapped_at(std::string_view point) const { return taps_ && taps_->has(point); }
  /// Whether one that is inside an operation has.
  bool is_tapped_inside() const;
  /// The value of a point of this module after its taps.
  at::Tensor tapped(std::string_view point, const at::Tensor& value) const;
  /// The same for a value that others may read, too: what taps write to it does not reach them.
  at::Tensor tapped_copy(std::string_view point, const at::Tensor& value) const;

  /// This module's own points. Every module has "hook_in" and "hook_out" where others call it.
  virtual std::vector<TapPoint> tap_points() const { return {}; }

  /// Puts the weights of this module and of all below it in the order in memory that their
  /// operations want; values and shapes stay. For code that gives a module other weights.
  void arrange_weights();

  /// The class's name and constructor arguments, as Python prints them:
  /// "Linear(in_features=640, out_features=2048, bias=False)".
  virtual std::string signature() const = 0;

  /// That of the whole model.
  UseLock& use_lock() const { return *use_lock_; }

 protected:
  const Ops& ops() const { return *ops_; }

  /// Gives this module's lock, and its passes, to all below it. For the constructor of a model, at
  /// its end.
  void share_use_lock();

  TapPasses& passes() const { return *passes_; }

  /// What users of another library call a point below this module, by its path.
  virtual std::vector<std::string> other_names(const std::string& path) const;
  /// Throws std::invalid_argument when `numerics` do not serve the taps of this module.
  virtual void check_taps(Numerics numerics) const;

  /// What arrange_weights does to this module alone, for the few whose operations mind the order.
  virtual void arrange_own_weights() {}

 private:
  struct NamedPoint;

  void set_ops(const Ops& ops);
  // This module and all below it.
  std::vector<Module*> all_ours();
  std::vector<NamedPoint> named_points();

  const Ops* ops_;
  std::shared_ptr<UseLock> use_lock_ = std::make_shared<UseLock>();
  std::shared_ptr<TapPasses> passes_ = std::make_shared<TapPasses>();
  std::unique_ptr<ModuleTaps> taps_;  // Null when there are none.
};

/// The tree below `module`, as Python's print(module) shows it: equal neighbours of a list are
/// folded into "(0-17): 18 x …".
std::string to_string(const torch::nn::Module& module);

/// `size`. Throws std::invalid_argument if it is negative, e.g. "Linear: in_features is -3, but …".
int64_t check_size(std::string_view module, std::string_view name, int64_t size);

/// A parameter without contents. On the CPU no memory is used until a page is written, so a model
/// larger than memory can be built and then given the tensors of a mapped file.
/// Throws std::bad_alloc for sizes that no address space holds.
torch::Tensor uninitialized(torch::IntArrayRef sizes, torch::Dtype dtype);

/// The dtype of new weights: LibTorch's default, which Python's torch.set_default_dtype sets.
torch::Dtype default_dtype();

/// Sets LibTorch's default dtype, and on destruction the one before. Weights take the default
/// dtype when a module is constructed.
class DefaultDtypeGuard {
 public:
  explicit DefaultDtypeGuard(torch::Dtype dtype);
  ~DefaultDtypeGuard();
  DefaultDtypeGuard(const DefaultDtypeGuard&) = delete;
  DefaultDtypeGuard& operator=(const DefaultDtypeGuard&) = delete;

 private:
  torch::Dtype previous_;
};

}  // namespace gemma
