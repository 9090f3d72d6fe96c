#pragma once

#include <cstdint>

#include <gemma/config/paligemma_config.h>
#include <gemma/generate/paligemma.h>

namespace gemma::testing {

/// Images of 16 tokens, and Gemma 1 or 2 (tiny_config) behind them: of Gemma 2's layers the windows
/// are shorter than an image. With the tokenizer tests/data/tiny.model.
PaliGemmaConfig tiny_paligemma_config(Architecture architecture);

/// One whose weights follow from the seed.
PaliGemmaForConditionalGeneration random_paligemma(Architecture architecture, uint64_t seed = 1);

}  // namespace gemma::testing
