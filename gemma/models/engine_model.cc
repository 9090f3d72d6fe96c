#include <stdexcept>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <gemma/models/engine_model.h>

namespace gemma {

const Tokenizer& EngineModelImpl::tokenizer() const {
  if (!tokenizer_) {
    throw std::logic_error(
        fmt::format("{}: no tokenizer; set config.tokenizer before constructing the model, or call "
                    "set_tokenizer",
                    signature().substr(0, signature().find('('))));
  }
  return *tokenizer_;
}

torch::Tensor positions_of(const Step& step, torch::Device device) {
  std::vector<int64_t> positions;
  for (const auto& segment : step.segments) {
    for (int64_t i = 0; i < segment.tokens; ++i) positions.push_back(segment.position + i);
  }
  return at::tensor(positions, at::kLong).to(device);
}

}  // namespace gemma
