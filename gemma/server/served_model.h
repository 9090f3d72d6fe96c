#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gemma/engine/engine.h>
#include <gemma/generate/prompt_tokens.h>
#include <gemma/server/message_content.h>
#include <gemma/text/tokenizer.h>

namespace gemma::server {

/// The model that is served. From any thread.
class ServedModel {
 public:
  virtual ~ServedModel() = default;

  virtual const Tokenizer& tokenizer() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;
  /// Tokens that end a text besides eos.
  virtual std::vector<int64_t> stop_ids() const = 0;
  /// As Engine::submit; a text ends when its result is destroyed.
  virtual std::vector<std::shared_ptr<void>> submit(std::vector<Request> requests) = 0;
  /// Whether it has image_tokens().
  virtual bool sees_images() const { return false; }
  /// What a PNG or JPEG file becomes in a prompt; takes a while the first time. Throws
  /// std::invalid_argument for one that is damaged, or larger than is served; `name` stands in
  /// messages.
  virtual gemma::PromptTokens image_tokens(const std::string& file, const std::string& name);
  /// Whether it knows no chat, and answers one message, images and a text behind them: PaliGemma.
  /// Then it has message_tokens() instead.
  virtual bool takes_one_message() const { return false; }
  /// The prompt that such a message is. Throws as image_tokens.
  virtual gemma::PromptTokens message_tokens(const std::vector<MessageImage>& images,
                                             const std::string& text);
  /// Waits until no pass is under way.
  virtual EngineStatus status() = 0;
};

/// A model behind an engine of its own. Throws as Engine does.
std::unique_ptr<ServedModel> make_served_model(EngineModel model,
                                               const EngineOptions& options,
                                               std::vector<int64_t> stop_ids);

}  // namespace gemma::server
