#include <array>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string_view>

#include <fmt/format.h>

#include <gemma/checkpoint/gguf.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/gguf/gguf_tokenizer.h>
#include <gemma/weights/hf/hf_tokenizer.h>
#include <gemma/weights/load_tokenizer.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

// A file that is not there or too short is left to the other reader.
bool begins_as_gguf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 4> begin{};
  return file.read(begin.data(), begin.size()) && is_gguf(std::as_bytes(std::span(begin)));
}

Tokenizer from_metadata(const GgufMetadata& metadata) {
  return Tokenizer::from_pieces(gguf_pieces(metadata));
}

Tokenizer from_gguf(const std::string& path) {
  const MappedFile file(path);
  return from_metadata(read_gguf(file.bytes(), path).metadata);
}

Tokenizer from_json(const std::string& path, std::optional<int64_t> rows) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const auto added = hf_added_tokens(fs::path(path).parent_path());
  auto pieces = hf_pieces({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, added, path);
  return Tokenizer::from_pieces(with_added_tokens(std::move(pieces), added, rows));
}

Tokenizer from_model(const std::string& path, std::optional<int64_t> rows) {
  Tokenizer tokenizer(path);
  const auto added = hf_added_tokens(fs::path(path).parent_path());
  if (added.empty()) return tokenizer;
  const auto pieces = tokenizer.pieces();
  auto all = with_added_tokens(pieces, added, rows);
  return all == pieces ? std::move(tokenizer) : tokenizer.with_pieces(all);
}

// What `load` returns; the file is named where pieces are none.
template <typename Load>
Tokenizer with_path(const std::string& path, Load load) {
  try {
    return load();
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(fmt::format("Tokenizer: {}: {}", path, error.what()));
  }
}

void check_vocabulary(const GemmaConfig& config, const Tokenizer& tokenizer) {
  const auto tokens = tokenizer.n_words(), rows = config.vocab_size;
  if (tokens == rows) return;
  const std::string_view why = tokens < rows
                                   ? "so that it could answer with tokens that have no text"
                                   : "so that it is another model's";
  throw std::runtime_error(fmt::format(
      "Tokenizer: {}: has {} tokens, but the model's embedding {} rows, {}; name the tokenizer "
      "that was saved with the model with --tokenizer, in its folder (tokenizer.json, or "
      "tokenizer.model beside added_tokens.json)",
      *config.tokenizer, tokens, rows, why));
}

}  // namespace

Tokenizer load_tokenizer(const std::string& path, std::optional<int64_t> rows) {
  return with_path(path, [&] {
    if (begins_as_gguf(path)) return from_gguf(path);
    return path.ends_with(".json") ? from_json(path, rows) : from_model(path, rows);
  });
}

Tokenizer load_tokenizer(const GemmaConfig& config, const WeightSource& source) {
  const auto path = config.tokenizer.value();
  const auto* const metadata = source.checkpoint().metadata();
  auto tokenizer = metadata != nullptr && path == source.path()
                       ? with_path(path, [&] { return from_metadata(*metadata); })
                       : load_tokenizer(path, config.vocab_size);
  check_vocabulary(config, tokenizer);
  return tokenizer;
}

}  // namespace gemma
