#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/text/grammar.h>

namespace gemma {
namespace {

using Kind = GrammarSource::Kind;

constexpr int64_t kExtra = 37;  // Of the model's vocabulary, beyond the tokenizer's.

class GrammarTest : public ::testing::Test {
 protected:
  std::string text_of(int64_t token) const {
    const auto piece = tokenizer_.id_to_piece(token);
    if (const auto byte = byte_of_piece(piece)) return std::string(1, static_cast<char>(*byte));
    std::string text;
    for (size_t i = 0; i < piece.size();) {
      const bool is_blank = piece.compare(i, 3, "\u2581") == 0;
      text += is_blank ? ' ' : piece[i];
      i += is_blank ? 3 : 1;
    }
    return text;
  }

  // The tokens that spell something, by SentencePiece's types.
  std::map<int64_t, std::string> texts() const {
    std::map<int64_t, std::string> all;
    const auto pieces = tokenizer_.pieces();
    for (size_t i = 0; i < pieces.size(); ++i) {
      const auto type = pieces[i].type;
      if (type == PieceType::kControl || type == PieceType::kUnknown) continue;
      all[static_cast<int64_t>(i)] = text_of(static_cast<int64_t>(i));
    }
    return all;
  }

  // Goes through a language along random tokens, and compares each mask with what begins one of
  // its texts -> whether the text came to an end.
  void walk(const GrammarSource& source, const std::set<std::string>& language, uint64_t seed) {
    std::mt19937_64 random(seed);
    GrammarState state(compiler_.compile(source), stops_);
    std::string text;
    for (;;) {
      const auto mask = state.mask();
      ASSERT_EQ(std::ssize(mask), (size_ + 31) / 32);
      std::vector<int64_t> allowed;
      for (int64_t token = 0; token < size_; ++token) {
        const bool is_set = (mask[static_cast<size_t>(token / 32)] >> (token % 32) & 1U) != 0;
        ASSERT_EQ(is_set, is_allowed(token, text, language)) << text << " + " << token;
        if (is_set) allowed.push_back(token);
      }
      const bool only_stops = std::ranges::all_of(
          allowed, [&](int64_t token) { return std::ranges::count(stops_, token) > 0; });
      ASSERT_EQ(state.is_over(), only_stops);
      const auto next = allowed[random() % allowed.size()];
      const auto before = state;
      ASSERT_TRUE(state.accept(next));
      if (std::ranges::count(stops_, next) > 0) return;
      text += texts_.at(next);
      // What it cannot go on with changes nothing; a copy stays where it was.
      auto copy = before;
      const auto same = copy.mask();
      EXPECT_TRUE((same[static_cast<size_t>(next / 32)] >> (next % 32) & 1U) != 0);
      EXPECT_FALSE(state.accept(tokenizer_.bos_id()));
    }
  }

  bool is_allowed(int64_t token, const std::string& text, const std::set<std::string>& language) {
    if (std::ranges::count(stops_, token) > 0) return language.contains(text);
    const auto found = texts_.find(token);
    if (found == texts_.end()) return false;
    const auto longer = text + found->second;
    const auto first = language.lower_bound(longer);
    return first != language.end() && first->starts_with(longer);
  }

  std::string error_of(Kind kind, const std::string& text) {
    try {
      compiler_.compile({kind, text});
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return {};
  }

  Tokenizer tokenizer_{testing::data_path("tiny.model").string()};
  int64_t size_ = tokenizer_.n_words() + kExtra;
  GrammarCompiler compiler_{tokenizer_, size_};
  std::vector<int64_t> stops_ = {tokenizer_.eos_id(), tokenizer_.n_words() + 3};
  std::map<int64_t, std::string> texts_ = texts();
};

TEST_F(GrammarTest, MasksAreThoseOfBruteForceForWordsOfAGrammar) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 30; ++round) {
    std::set<std::string> language;
    std::string rules = "root ::= ";
    const auto words = 1 + random() % 8;
    for (size_t i = 0; i < words; ++i) {
      std::string word;
      const auto letters = random() % 12;
      for (size_t k = 0; k < letters; ++k) word += "the anr"[random() % 7];
      rules += fmt::format("{}\"{}\"", i == 0 ? "" : " | ", word);
      language.insert(word);
    }
    walk({Kind::kEbnf, rules}, language, random());
  }
}

TEST_F(GrammarTest, MasksAreThoseOfBruteForceForARegularExpression) {
  std::set<std::string> language;
  for (int i = 0; i < 1000; ++i) {
    for (const char* unit : {" m", "\u00b5m"}) {
      language.insert(fmt::format("{}{}", i, unit));
      if (i < 100) language.insert(fmt::format("{:03}{}", i, unit));
      if (i < 10) language.insert(fmt::format("{:02}{}", i, unit));
    }
  }
  for (uint64_t seed = 0; seed < 20; ++seed) {
    walk({Kind::kRegex, "[0-9]{1,3}( m|\u00b5m)"}, language, seed);
  }
}

TEST_F(GrammarTest, MasksAreThoseOfBruteForceForValuesOfASchema) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    walk({Kind::kJsonSchema, R"({"enum": ["the", 17, true, null]})"},
         {R"("the")", "17", "true", "null"}, seed);
  }
}

TEST_F(GrammarTest, AGrammarIsCompiledOnce) {
  const GrammarSource source{Kind::kRegex, "[a-z]+"};
  const auto first = compiler_.compile(source);
  EXPECT_GT(first.bytes(), 0);
  EXPECT_EQ(compiler_.compile(source).bytes(), first.bytes());
}

TEST_F(GrammarTest, WhatIsNoGrammarIsRefusedInOneLine) {
  EXPECT_EQ(
      error_of(Kind::kRegex, "(a"),
      "regular expression: Regex parsing error at position 3: The parenthesis is not closed.");
  EXPECT_EQ(
      error_of(Kind::kRegex, "a(?=b)"),
      "regular expression: Regex parsing error at position 4: Lookahead is not supported yet.");
  EXPECT_EQ(error_of(Kind::kEbnf, "root ::= b"),
            "grammar: EBNF parser error at line 1, column 10: Rule \"b\" is not defined");
  EXPECT_EQ(error_of(Kind::kEbnf, "a ::= \"b\""),
            "grammar: EBNF parser error at line 1, column 1: The root rule with name \"root\" is "
            "not found");
  EXPECT_EQ(error_of(Kind::kEbnf, std::string(65537, 'a')),
            "grammar: it has 65537 bytes, but may have 65536");
  EXPECT_EQ(error_of(Kind::kJsonSchema, R"({"type": "strin"})"),
            "JSON Schema: Unsupported type \"strin\"");
  EXPECT_EQ(error_of(Kind::kJsonSchema, R"({"type": "number", "multipleOf": 0.5})"),
            "JSON Schema: multipleOf is not supported for type:number");
  EXPECT_EQ(error_of(Kind::kJsonSchema, R"({"$ref": "#/$defs/a"})"),
            "JSON Schema: Cannot find field '$defs' in #/$defs/a");
}

}  // namespace
}  // namespace gemma
