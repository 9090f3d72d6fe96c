#include <span>
#include <stdexcept>
#include <utility>

#include <gemma/generate/multimodal_lm.h>
#include <gemma/generate/paligemma.h>
#include <gemma/server/image_cache.h>
#include <gemma/server/served_model.h>

namespace gemma::server {
namespace {

constexpr int64_t kMostPixels = 64 << 20;  // Of an image, decoded: 3 bytes each.
constexpr size_t kImageCacheBytes = 256'000'000;

Image decoded(const std::string& file, const std::string& name) {
  try {
    return decode_image(std::as_bytes(std::span(file)), name, kMostPixels);
  } catch (const std::runtime_error& error) {
    throw std::invalid_argument(error.what());
  }
}

class EngineServedModel : public ServedModel {
 public:
  EngineServedModel(EngineModel model, const EngineOptions& options, std::vector<int64_t> stop_ids)
      : model_(std::move(model)), stop_ids_(std::move(stop_ids)), engine_(model_, options) {}

  const Tokenizer& tokenizer() const override { return model_->tokenizer(); }
  int64_t vocab_size() const override { return model_->vocab_size(); }
  int64_t max_positions() const override { return model_->max_positions(); }
  std::vector<int64_t> stop_ids() const override { return stop_ids_; }
  std::vector<std::shared_ptr<void>> submit(std::vector<Request> requests) override {
    std::vector<std::shared_ptr<void>> handles;
    for (auto& generation : engine_.submit(std::move(requests))) {
      handles.push_back(std::make_shared<Generation>(std::move(generation)));
    }
    return handles;
  }
  bool sees_images() const override { return sight() != nullptr || takes_one_message(); }
  gemma::PromptTokens image_tokens(const std::string& file, const std::string& name) override {
    if (auto known = images_.find(file)) return *std::move(known);
    auto tokens = sight()->prompt_tokens({decoded(file, name)}, /*bos=*/false);
    images_.insert(file, tokens);
    return tokens;
  }
  bool takes_one_message() const override { return paligemma() != nullptr; }
  gemma::PromptTokens message_tokens(const std::vector<MessageImage>& images,
                                     const std::string& text) override {
    Prompt prompt;
    for (const auto& image : images) prompt.emplace_back(decoded(image.file, image.path));
    prompt.emplace_back(text);
    return paligemma()->prompt_tokens(prompt);
  }
  EngineStatus status() override { return engine_.status(); }

 private:
  Gemma3ForMultimodalLMImpl* sight() const {
    return dynamic_cast<Gemma3ForMultimodalLMImpl*>(model_.ptr().get());
  }

  PaliGemmaForConditionalGenerationImpl* paligemma() const {
    return dynamic_cast<PaliGemmaForConditionalGenerationImpl*>(model_.ptr().get());
  }

  EngineModel model_;
  ImageCache images_{kImageCacheBytes};
  std::vector<int64_t> stop_ids_;
  Engine engine_;
};

}  // namespace

gemma::PromptTokens ServedModel::image_tokens(const std::string& /*file*/,
                                              const std::string& /*name*/) {
  throw std::logic_error("server: the model sees no images");
}

gemma::PromptTokens ServedModel::message_tokens(const std::vector<MessageImage>& /*images*/,
                                                const std::string& /*text*/) {
  throw std::logic_error("server: the model takes chats");
}

std::unique_ptr<ServedModel> make_served_model(EngineModel model,
                                               const EngineOptions& options,
                                               std::vector<int64_t> stop_ids) {
  return std::make_unique<EngineServedModel>(std::move(model), options, std::move(stop_ids));
}

}  // namespace gemma::server
