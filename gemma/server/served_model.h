#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gemma/engine/engine.h>
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
  /// Waits until no pass is under way.
  virtual EngineStatus status() = 0;
};

/// A model behind an engine of its own. Throws as Engine does.
std::unique_ptr<ServedModel> make_served_model(EngineModel model,
                                               const EngineOptions& options,
                                               std::vector<int64_t> stop_ids);

}  // namespace gemma::server
