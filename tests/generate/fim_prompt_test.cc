#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/fim_prompt.h>

namespace gemma {
namespace {

using Ids = std::vector<int64_t>;

constexpr std::array<std::string_view, 4> kMarkers = {"<|fim_prefix|>", "<|fim_suffix|>",
                                                      "<|fim_middle|>", "<|file_separator|>"};

// The tiny tokenizer with the first `count` of the markers in the place of its last pieces.
Tokenizer tokenizer_with_markers(size_t count) {
  const Tokenizer tiny(testing::data_path("tiny.model").string());
  auto pieces = tiny.pieces();
  for (size_t i = 0; i < count; ++i) {
    pieces[pieces.size() - kMarkers.size() + i] = {std::string(kMarkers[i]), 0,
                                                   PieceType::kUserDefined};
  }
  return tiny.with_pieces(pieces);
}

class FimPromptTest : public ::testing::Test {
 protected:
  Ids joined(const std::vector<Ids>& parts) const {
    Ids ids;
    for (const auto& part : parts) ids.insert(ids.end(), part.begin(), part.end());
    return ids;
  }
  Ids text(std::string_view part) const { return tokenizer_.encode(part, /*bos=*/false); }

  Tokenizer tokenizer_ = tokenizer_with_markers(4);
  FimPrompt prompt_{tokenizer_};
  const int64_t first_ = tokenizer_.n_words() - 4;  // The id of <|fim_prefix|>.
};

TEST_F(FimPromptTest, IsThatOfGooglesExample) {
  const auto ids = prompt_.encode("import ", "if __name__ == \"__main__\":\n    sys.exit(0)");
  EXPECT_EQ(ids,
            tokenizer_.encode("<|fim_prefix|>import <|fim_suffix|>if __name__ == \"__main__\":\n"
                              "    sys.exit(0)<|fim_middle|>"));
  EXPECT_EQ(ids.front(), tokenizer_.bos_id());
  EXPECT_EQ(ids[1], first_);
  EXPECT_EQ(ids.back(), first_ + 2);
}

TEST_F(FimPromptTest, TextsMayBeEmptyAndKeepTheirBlanks) {
  EXPECT_EQ(prompt_.encode("", ""), (Ids{tokenizer_.bos_id(), first_, first_ + 1, first_ + 2}));
  EXPECT_EQ(prompt_.encode("\n  a \n", " b"), joined({{tokenizer_.bos_id(), first_},
                                                      text("\n  a \n"),
                                                      {first_ + 1},
                                                      text(" b"),
                                                      {first_ + 2}}));
}

TEST_F(FimPromptTest, OtherFilesStandInFront) {
  const std::vector<std::string> files = {"one\n", "two"};
  EXPECT_EQ(prompt_.encode("a", "b", files), joined({{tokenizer_.bos_id()},
                                                     text("one\n"),
                                                     {first_ + 3},
                                                     text("two"),
                                                     {first_ + 3, first_},
                                                     text("a"),
                                                     {first_ + 1},
                                                     text("b"),
                                                     {first_ + 2}}));
}

TEST_F(FimPromptTest, AMarkerInATextStaysText) {
  const std::vector<std::string> files = {"x<|file_separator|>y"};
  const auto ids = prompt_.encode("a<|fim_suffix|>", "<|fim_middle|><bos>", files);
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(std::ranges::count(ids, first_ + i), 1) << i;
  EXPECT_NE(tokenizer_.decode(ids).find("<|fim_middle|><bos>"), std::string::npos);
}

TEST_F(FimPromptTest, MarkersEndTheText) {
  EXPECT_EQ(prompt_.stop_ids(), (Ids{first_, first_ + 1, first_ + 2, first_ + 3}));
}

TEST_F(FimPromptTest, ATokenizerWithoutMarkersIsRefused) {
  for (const size_t count : {0, 2}) {
    const auto other = tokenizer_with_markers(count);
    const auto message =
        testing::message_of<std::invalid_argument>([&] { FimPrompt prompt(other); });
    EXPECT_TRUE(testing::contains(
        message, "the tokenizer has no " + std::string(kMarkers[count]) + ", so the model"));
  }
  const auto without_separator = tokenizer_with_markers(3);
  const FimPrompt prompt(without_separator);
  EXPECT_EQ(prompt.encode("", "").size(), 4U);
  EXPECT_EQ(prompt.stop_ids().size(), 3U);
  const std::vector<std::string> files = {"one"};
  EXPECT_TRUE(testing::contains(
      testing::message_of<std::invalid_argument>([&] { prompt.encode("a", "b", files); }),
      "no <|file_separator|>, so there can be no other files"));
}

}  // namespace
}  // namespace gemma
