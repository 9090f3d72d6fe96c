#pragma once

#include <cstdint>
#include <string>

#include <gemma/models/language_model.h>

namespace gemma {

/// "1,234,567".
std::string grouped(int64_t number);

struct SummaryOptions {
  /// Of the token ids [B, L] that the shapes are told for.
  int64_t batch_size = 1;
  int64_t length = 1;
  /// Levels below the model that have lines of their own.
  int64_t depth = 3;
};

/// A table of the model's modules as torchinfo.summary lays it out: class and name, shape of the
/// output, number of parameters; below it the totals. Shapes are those of the modules that token
/// ids go through; the outputs of the sampler and of the model itself are the logits. A module of
/// images, and a list, has "--" there. Nothing is computed. Throws std::invalid_argument for a size
/// below 1 or a depth below 0.
std::string summary(const LanguageModelImpl& model, const SummaryOptions& options = {});

}  // namespace gemma
