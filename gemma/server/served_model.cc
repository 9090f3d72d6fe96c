#include <utility>

#include <gemma/server/served_model.h>

namespace gemma::server {
namespace {

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
  EngineStatus status() override { return engine_.status(); }

 private:
  EngineModel model_;
  std::vector<int64_t> stop_ids_;
  Engine engine_;
};

}  // namespace

std::unique_ptr<ServedModel> make_served_model(EngineModel model,
                                               const EngineOptions& options,
                                               std::vector<int64_t> stop_ids) {
  return std::make_unique<EngineServedModel>(std::move(model), options, std::move(stop_ids));
}

}  // namespace gemma::server
