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

PassRows rows_of(const Step& step) {
  PassRows rows{{}, /*is_flat=*/true};
  for (size_t i = 0; i < step.segments.size(); ++i) {
    const auto text = step.texts.empty() ? static_cast<int64_t>(i) : step.texts[i];
    rows.parts.push_back({text, step.segments[i].position, step.segments[i].tokens});
  }
  return rows;
}

torch::Tensor positions_of(const Step& step, torch::Device device) {
  std::vector<int64_t> positions;
  for (const auto& segment : step.segments) {
    for (int64_t i = 0; i < segment.tokens; ++i) positions.push_back(segment.position + i);
  }
  return at::tensor(positions, at::kLong).to(device);
}

}  // namespace gemma
