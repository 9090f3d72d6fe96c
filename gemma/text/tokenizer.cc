#include <filesystem>
#include <sentencepiece_processor.h>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/errors.h>
#include <gemma/text/tokenizer.h>

namespace gemma {
namespace {

int checked_id(int64_t id, int64_t n_words) {
  if (id < 0 || id >= n_words) {
    throw std::out_of_range(
        fmt::format("Tokenizer: id {} is outside the vocabulary of {} pieces", id, n_words));
  }
  return static_cast<int>(id);
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_of(const std::string& model) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto loaded = processor->LoadFromSerializedProto(model);
  if (!loaded.ok()) {
    throw std::invalid_argument(
        fmt::format("Tokenizer: the pieces make no SentencePiece model: {}", loaded.message()));
  }
  return processor;
}

}  // namespace

Tokenizer::Tokenizer(const std::string& model_path)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto status = std::filesystem::status(model_path);
  if (!std::filesystem::exists(status)) {
    throw FileNotFound(fmt::format(
        "Tokenizer: {}: no such file; set config.tokenizer (--tokenizer) to the tokenizer.model "
        "that came with the checkpoint",
        model_path));
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw std::runtime_error(
        fmt::format("Tokenizer: {}: not a file; give the path of a tokenizer.model", model_path));
  }
  const auto loaded = processor_->Load(model_path);
  if (!loaded.ok() || processor_->GetPieceSize() == 0) {
    throw std::runtime_error(
        fmt::format("Tokenizer: {}: not a SentencePiece model; give the path of a tokenizer.model",
                    model_path));
  }
}

Tokenizer::Tokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
    : processor_(std::move(processor)) {}

Tokenizer Tokenizer::from_pieces(const std::vector<Piece>& pieces) {
  return Tokenizer(processor_of(sentencepiece_model(pieces)));
}

Tokenizer Tokenizer::with_pieces(const std::vector<Piece>& pieces) const {
  return Tokenizer(processor_of(gemma::with_pieces(serialized(), pieces)));
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(std::string_view s, bool bos, bool eos) const {
  std::vector<int> ids;
  const auto status = processor_->Encode(s, &ids);
  if (!status.ok()) throw std::runtime_error(fmt::format("Tokenizer: {}", status.ToString()));
  std::vector<int64_t> t;
  t.reserve(ids.size() + 2);
  if (bos) t.push_back(bos_id());
  t.insert(t.end(), ids.begin(), ids.end());
  if (eos) t.push_back(eos_id());
  return t;
}

std::string Tokenizer::decode(const std::vector<int64_t>& t) const {
  std::vector<int> ids;
  ids.reserve(t.size());
  for (const auto id : t) ids.push_back(checked_id(id, n_words()));
  std::string text;
  const auto status = processor_->Decode(ids, &text);
  if (!status.ok()) throw std::runtime_error(fmt::format("Tokenizer: {}", status.ToString()));
  return text;
}

std::string Tokenizer::id_to_piece(int64_t id) const {
  return processor_->IdToPiece(checked_id(id, n_words()));
}

int64_t Tokenizer::piece_to_id(std::string_view piece) const {
  return processor_->PieceToId({piece.data(), piece.size()});
}

std::string Tokenizer::serialized() const { return processor_->serialized_model_proto(); }

std::vector<Piece> Tokenizer::pieces() const { return pieces_of(serialized()); }

int64_t Tokenizer::n_words() const { return processor_->GetPieceSize(); }
int64_t Tokenizer::bos_id() const { return processor_->bos_id(); }
int64_t Tokenizer::eos_id() const { return processor_->eos_id(); }
int64_t Tokenizer::pad_id() const { return processor_->pad_id(); }

}  // namespace gemma
