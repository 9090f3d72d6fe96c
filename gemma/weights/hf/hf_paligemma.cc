#include <stdexcept>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/weights/family.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_family.h>
#include <gemma/weights/hf/hf_fields.h>
#include <gemma/weights/hf/hf_paligemma.h>
#include <gemma/weights/hf/hf_tokenizer.h>

namespace gemma {
namespace {

// transformers: SiglipVisionConfig.
SiglipVisionModelConfig vision_defaults() {
  SiglipVisionModelConfig config;
  config.num_hidden_layers = 12;
  config.embedding_dim = 768;
  config.image_size = 224;
  config.conv2d_patch_size = 16;
  config.num_attention_heads = 12;
  config.intermediate_size = 3072;
  return config;
}

Fields part_of(const Fields& top, std::string_view name) {
  if (const auto part = top.object(name)) return *part;
  top.refuse(name, "is not there, which every PaliGemma has");
}

GemmaConfig text_of(const Fields& text) {
  const auto type = text.text("model_type").value_or("gemma");
  if (type == "gemma") return hf_text_config(text, hf_family(Architecture::kGemma1));
  if (type == "gemma2") return hf_text_config(text, hf_family(Architecture::kGemma2));
  text.refuse("model_type", fmt::format("is \"{}\"; valid: gemma, gemma2", printable(type)));
}

}  // namespace

PaliGemmaConfig paligemma_from_hf(std::string_view json,
                                  const std::string& path,
                                  const std::optional<std::filesystem::path>& tokenizer) {
  const auto value = parse_fields(json, path);
  const Fields top(value, path);
  if (family_of(top) != Family::kPaliGemma) {
    top.refuse("model_type", "is not \"paligemma\"");
  }
  PaliGemmaConfig config;
  config.text_config = text_of(part_of(top, "text_config"));
  config.vision_config = hf_vision_config(part_of(top, "vision_config"), vision_defaults());
  config.vision_config.encoding_sequence_length = config.image_seq_length();
  config.projection_dim = config.text_config.hidden_size;
  top.read("projection_dim", config.projection_dim);
  config.image_token_id = 256'000;  // transformers: PaliGemmaConfig.
  top.read("image_token_index", config.image_token_id);
  top.read("image_token_id", config.image_token_id);
  config.text_config.dtype = config.vision_config.dtype = hf_dtype(top);
  config.text_config.tokenizer = std::nullopt;
  if (tokenizer) {
    config.text_config.vocab_size = hf_vocabulary_rows(config.text_config.vocab_size, *tokenizer);
  }
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    refuse_file(path, error.what());
  }
  return config;
}

}  // namespace gemma
