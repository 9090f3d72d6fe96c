#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <gemma/ops/exponential_draws.h>

namespace gemma {
namespace {

// From every place in the generator's block of 624 numbers, over one block and over several.
TEST(ExponentialDraws, AreThoseOfLibTorchAndLeaveItsGeneratorAsItDoes) {
  for (const int64_t before : {0, 1, 2, 311, 623, 624, 625, 1000}) {
    for (const int64_t count : {1, 2, 311, 312, 313, 5000}) {
      at::manual_seed(3);
      if (before > 0) at::empty({before}, at::kInt).random_();
      const auto want = at::empty({1, count}, at::kFloat).exponential_();
      const auto next = at::rand({4}, at::kDouble);

      at::manual_seed(3);
      if (before > 0) at::empty({before}, at::kInt).random_();
      const ExponentialDraws draws(count);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(draws.at(i), want.const_data_ptr<float>()[i])
            << "number " << i << " of " << count << " after " << before;
      }
      EXPECT_TRUE(at::equal(at::rand({4}, at::kDouble), next)) << count << " after " << before;
    }
  }
}

}  // namespace
}  // namespace gemma
