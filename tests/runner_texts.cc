#include "tests/runner_texts.h"

#include <algorithm>

#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <gemma/engine/model_runner.h>

namespace gemma::testing {

std::vector<at::Tensor> hidden_states_alone(const EngineModel& model,
                                            std::span<const int64_t> ids,
                                            size_t prompt) {
  ModelRunner runner(model);
  auto sequence = runner.make_sequence();
  const ModelRunner::Feed feed{&sequence, ids.first(prompt)};
  std::vector<at::Tensor> hidden{runner.prompt({&feed, 1})[0]};
  for (const auto id : ids.subspan(prompt)) {
    const ModelRunner::Next next{&sequence, id};
    hidden.push_back(runner.decode({&next, 1})[0]);
  }
  return hidden;
}

void expect_bits_of_texts_alone(const EngineModel& model, const std::vector<BatchText>& texts) {
  ModelRunner runner(model, {.max_batch = std::ssize(texts), .chunk = 16});
  std::vector<std::vector<at::Tensor>> want;
  std::vector<Sequence> sequences;
  size_t steps = 0;
  for (const auto& [ids, prompt, joins] : texts) {
    want.push_back(hidden_states_alone(model, ids, prompt));
    sequences.push_back(runner.make_sequence());
    steps = std::max(steps, joins + want.back().size());
  }
  for (size_t step = 0; step < steps; ++step) {
    std::vector<ModelRunner::Feed> feeds;
    std::vector<ModelRunner::Next> nexts;
    std::vector<at::Tensor> of_feeds, of_nexts;
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto& [ids, prompt, joins] = texts[i];
      if (step < joins || step - joins >= want[i].size()) continue;
      const auto at = step - joins;
      if (at == 0) {
        feeds.push_back({&sequences[i], std::span(ids).first(prompt)});
        of_feeds.push_back(want[i][0]);
      } else {
        nexts.push_back({&sequences[i], ids[prompt + at - 1]});
        of_nexts.push_back(want[i][at]);
      }
    }
    if (!nexts.empty()) {
      EXPECT_TRUE(at::equal(runner.decode(nexts), at::stack(of_nexts))) << "step " << step;
    }
    if (!feeds.empty()) {
      EXPECT_TRUE(at::equal(runner.prompt(feeds), at::stack(of_feeds))) << "step " << step;
    }
  }
}

}  // namespace gemma::testing
