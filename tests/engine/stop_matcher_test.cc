#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <gemma/engine/stop_matcher.h>

namespace gemma {
namespace {

struct Shown {
  std::string text;
  bool stopped;
  bool operator==(const Shown&) const = default;
};

Shown show(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string text;
  for (const auto& piece : pieces) text += matcher.add(piece);
  const bool stopped = matcher.stopped();
  return {text + matcher.finish(), stopped};
}

TEST(StopMatcher, EndsTheTextBeforeAStop) {
  EXPECT_EQ(show({"\n\n"}, {"one\n", "\ntwo"}), (Shown{"one", true}));
  EXPECT_EQ(show({"stop"}, {"a s", "to", "p b"}), (Shown{"a ", true}));
  EXPECT_EQ(show({"b"}, {"abc"}), (Shown{"a", true}));
  EXPECT_EQ(show({"aab"}, {"aa", "ab"}), (Shown{"a", true})) << "begun twice";
  EXPECT_EQ(show({"xyz", "y"}, {"xyz"}), (Shown{"x", true})) << "what ends first counts";
  EXPECT_EQ(show({"b", "ab"}, {"ab"}), (Shown{"", true})) << "the longer of two";
}

TEST(StopMatcher, ShowsAllWithoutAStop) {
  EXPECT_EQ(show({}, {"one", "two"}), (Shown{"onetwo", false}));
  EXPECT_EQ(show({""}, {"one"}), (Shown{"one", false}));
  EXPECT_EQ(show({"stop"}, {"a sto"}), (Shown{"a sto", false}));
}

TEST(StopMatcher, HoldsBackNoMoreThanMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.add("fooE"), "foo");
  EXPECT_EQ(matcher.add("N"), "");
  EXPECT_EQ(matcher.add("x"), "ENx");
  EXPECT_EQ(matcher.add("END"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.add("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

// However the text is cut, what is shown is the same.
TEST(StopMatcher, DoesNotDependOnTheCuts) {
  std::mt19937 random(1);
  const auto letters = [&](int most) {
    std::string text;
    for (auto left = random() % (most + 1); left > 0; --left) {
      text += static_cast<char>('a' + random() % 3);
    }
    return text;
  };
  for (int i = 0; i < 20000; ++i) {
    const std::vector<std::string> stops{letters(4), letters(3)};
    const auto text = letters(30);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const auto size = 1 + random() % 5;
      pieces.push_back(text.substr(at, size));
      at += size;
    }
    ASSERT_EQ(show(stops, pieces), show(stops, {text})) << text;
    // By hand: the stop that ends first, of these the longest.
    size_t end = std::string::npos, longest = 0;
    for (const auto& stop : stops) {
      const auto found = stop.empty() ? std::string::npos : text.find(stop);
      if (found == std::string::npos) continue;
      const auto ends = found + stop.size();
      if (ends < end || (ends == end && stop.size() > longest)) {
        end = ends;
        longest = stop.size();
      }
    }
    const Shown want =
        end == std::string::npos ? Shown{text, false} : Shown{text.substr(0, end - longest), true};
    ASSERT_EQ(show(stops, pieces), want) << text;
  }
}

}  // namespace
}  // namespace gemma
