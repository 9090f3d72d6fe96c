#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include <gemma/engine/prompt_lookup.h>

namespace gemma {
namespace {

using Ids = std::vector<int64_t>;

Ids found(const Ids& tokens, int64_t most = 10) {
  const auto guess = prompt_lookup(tokens, most);
  return {guess.begin(), guess.end()};
}

TEST(PromptLookup, FindsWhatFollowedTheLastThreeTokens) {
  EXPECT_EQ(found({1, 2, 3, 4, 5, 9, 1, 2, 3}), (Ids{4, 5, 9, 1, 2, 3}));
  EXPECT_EQ(found({1, 2, 3, 4, 5, 9, 1, 2, 3}, 2), (Ids{4, 5}));
}

TEST(PromptLookup, TakesTheLastPlace) {
  EXPECT_EQ(found({1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3}, 1), Ids{5});
}

TEST(PromptLookup, TakesThreeTokensBeforeTwo) {
  EXPECT_EQ(found({1, 2, 3, 4, 7, 2, 3, 5, 1, 2, 3}, 1), Ids{4});
  EXPECT_EQ(found({7, 2, 3, 5, 1, 2, 3}, 1), Ids{5});
}

TEST(PromptLookup, FindsWhatOverlaps) {
  EXPECT_EQ(found({1, 1, 1, 1}), Ids{1});
  EXPECT_EQ(found({1, 1, 1}), Ids{1});
  EXPECT_EQ(found({1, 2, 1, 2, 1, 2}), (Ids{1, 2}));
}

TEST(PromptLookup, GuessesNothingThatWasNotSaid) {
  EXPECT_EQ(found({}), Ids{});
  EXPECT_EQ(found({1}), Ids{});
  EXPECT_EQ(found({1, 1}), Ids{});
  EXPECT_EQ(found({1, 2, 3, 4}), Ids{});
  EXPECT_EQ(found({1, 1, 1, 1}, 0), Ids{});
  EXPECT_EQ(found({1, 1, 1, 1}, -1), Ids{});
}

}  // namespace
}  // namespace gemma
