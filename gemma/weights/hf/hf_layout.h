#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/config/config.h>
#include <gemma/weights/layout.h>

namespace gemma {

/// The layout of Hugging Face transformers: Gemma 1, 2 and 3, text and multimodal, and VaultGemma,
/// with the prefixes of all its releases, and without any. `names` are those of the checkpoint's
/// entries, without what other programs put before them. None when they are others.
///
/// Queries, keys and values become one matrix; rows of the embedding that stand for no token are
/// omitted (hf_vocabulary_rows), and lm_head.weight is the Layout's head.
std::optional<Layout> hf_layout(const Checkpoint& checkpoint,
                                const std::vector<std::string>& names);

/// One of the tensors that transformers has for one of gemma_pytorch: some of its rows.
struct HfPart {
  std::string name;
  int64_t first, rows;  // Of the tensor's first dimension.
  bool transposed = false;
};

/// `name` of any release of transformers with the prefixes that all their names are compared in:
/// those of a text model, "vision_tower." and "multi_modal_projector.".
std::string hf_plain_name(std::string name);

/// Those of a whole model's names, with VaultGemma's norms as Gemma 1 calls them.
std::vector<std::string> hf_plain_names(std::vector<std::string> names);

/// hf_layout the other way: what becomes of the tensor `name` of gemma_pytorch, whose first
/// dimension is `size`, in a model of `config`. Names that it does not know are kept.
std::vector<HfPart> hf_parts(const std::string& name, int64_t size, const GemmaConfig& config);

}  // namespace gemma
