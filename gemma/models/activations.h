#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/models/language_model.h>

namespace gemma {

/// The values of some of a model's points, text by text. Layers after the last of these points do
/// not compute. As long as it lives, the model has taps there.
class Activations {
 public:
  /// By the name that a pattern fits: of a text of T tokens [T, ...], and [H, T, T] of scores and
  /// patterns of attention.
  using Values = std::map<std::string, at::Tensor>;

  /// `points` are names or patterns of them, as Tap takes them. Throws std::invalid_argument as
  /// Module::add_taps does, and when no point of one is computed while a text is read.
  Activations(LanguageModel model, const std::vector<std::string>& points);
  ~Activations();
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;

  /// Of a text from position 0 on, its bos included. Throws as LanguageModelImpl::run does.
  Values of(std::span<const int64_t> tokens, const LayerCallback& on_layer = {});

  /// Of all values, in the order of `of`.
  const std::vector<std::string>& names() const { return names_; }

 private:
  void find_end(const std::vector<std::string>& points);

  LanguageModel model_;
  TapHandle handle_;
  LayerRange range_;
  std::vector<std::string> names_;
  // Of the pass that is computed.
  Values values_;
  int64_t layers_done_ = 0;
  int64_t layers_needed_ = 0;  // Done when the last value came.
  std::vector<bool> is_computed_;
};

/// Whether the value of a point is one of attention, [H, T, T], which is no row a token.
bool is_of_token_pairs(std::string_view point);

}  // namespace gemma
