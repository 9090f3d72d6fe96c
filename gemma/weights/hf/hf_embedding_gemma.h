#pragma once

#include <filesystem>
#include <vector>

#include <gemma/config/embedding_gemma_config.h>

namespace gemma {

/// Whether `path` is a directory of sentence-transformers: one with a modules.json.
bool has_sentence_transformer(const std::filesystem::path& path);

/// The folders of the Dense modules of such a directory, in their order. Throws FileNotFound when
/// there is no modules.json, and std::runtime_error, naming the file and the module, when the
/// modules are not a Transformer, a Pooling, any number of Dense and a Normalize.
std::vector<std::filesystem::path> dense_folders(const std::filesystem::path& directory);

/// What such a directory says of an EmbeddingGemma; the tokenizer is that in it, if there is one.
/// Throws as dense_folders, and std::runtime_error, naming the file and the field, for a model that
/// computes in another way.
EmbeddingGemmaConfig read_embedding_gemma_config(const std::filesystem::path& directory);

}  // namespace gemma
