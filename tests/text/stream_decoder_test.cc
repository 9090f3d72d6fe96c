#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/text/stream_decoder.h>

namespace gemma {
namespace {

// The pieces that come out, token by token, and the rest.
std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::vector<int64_t>& tokens) {
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> out;
  for (const auto token : tokens) out.push_back(decoder.add(token));
  out.push_back(decoder.finish());
  return out;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += part;
  return text;
}

class StreamDecoderTest : public ::testing::Test {
 protected:
  Tokenizer tokenizer_{testing::data_path("tiny.model").string()};
};

TEST_F(StreamDecoderTest, PiecesJoinToTheDecodedText) {
  for (const std::string text :
       {"the quick brown fox", "  two blanks, a\n\nbreak", "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd",
        "\xf0\x9f\x98\x80\xf0\x9f\x91\x8d!", ""}) {
    const auto tokens = tokenizer_.encode(text);
    EXPECT_EQ(joined(pieces(tokenizer_, tokens)), tokenizer_.decode(tokens));
  }
}

TEST_F(StreamDecoderTest, ACharacterComesWhole) {
  const auto tokens = tokenizer_.encode("a\xf0\x9f\x98\x80z", /*bos=*/false);
  for (const auto& piece : pieces(tokenizer_, tokens)) {
    EXPECT_TRUE(piece.find('\xf0') == std::string::npos ||
                piece.find("\xf0\x9f\x98\x80") != std::string::npos);
  }
  EXPECT_EQ(joined(pieces(tokenizer_, tokens)), "a\xf0\x9f\x98\x80z");
}

// A text that ends within a character, and one that goes on with other bytes.
TEST_F(StreamDecoderTest, BytesThatAreNoCharacterAreShownAtLast) {
  auto tokens = tokenizer_.encode("a\xf0\x9f\x98\x80", /*bos=*/false);
  tokens.pop_back();
  EXPECT_EQ(joined(pieces(tokenizer_, tokens)), tokenizer_.decode(tokens));
  const auto more = tokenizer_.encode("bc", /*bos=*/false);
  tokens.insert(tokens.end(), more.begin(), more.end());
  EXPECT_EQ(joined(pieces(tokenizer_, tokens)), tokenizer_.decode(tokens));
}

}  // namespace
}  // namespace gemma
