#include <array>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/server/completion_request.h>

namespace gemma::server {
namespace {

constexpr int64_t kVocabSize = 100;

struct Row {
  std::string_view body;
  std::string_view param;
  std::string_view message;  // A part of it.
};

template <size_t kCount>
void expect_refused(const std::array<Row, kCount>& rows,
                    CompletionRequest (*read)(const JsonValue&, int64_t)) {
  for (const auto& [body, param, message] : rows) {
    SCOPED_TRACE(body);
    try {
      read(parse_body(body), kVocabSize);
      ADD_FAILURE() << "it was taken";
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status(), 400);
      EXPECT_EQ(error.param(), param);
      EXPECT_TRUE(testing::contains(error.what(), message));
    }
  }
}

TEST(CompletionRequestTest, RefusesChatsThatAreNone) {
  constexpr std::array kRows = {
      Row{R"({})", "messages", "is missing"},
      Row{R"({"messages": null})", "messages", "is missing"},
      Row{R"({"messages": {}})", "messages", "is an object, but must be a list"},
      Row{R"({"messages": [1]})", "messages[0]", "is 1, but must be an object"},
      Row{R"({"messages": [{"role": 1}]})", "messages[0].role", "must be a text"},
      Row{R"({"messages": [{"role": "tool"}]})", "messages[0].role", "'tool' is unknown"},
      Row{R"({"messages": [{"role": "user", "content": [{}]}]})", "messages", "only text"},
      Row{R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})", "messages",
          "has no text"},
      Row{R"({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2})", "top_logprobs",
          "needs logprobs"},
      Row{R"({"messages": [{"role": "user", "content": "a"}], "logprobs": true,
             "top_logprobs": 21})",
          "top_logprobs", "from 0 to 20"},
      Row{R"({"messages": [{"role": "user", "content": "a"}], "stream_options": 1})",
          "stream_options", "an object"},
      Row{R"({"messages": [{"role": "user", "content": "a"}], "stream_options":
             {"include_usage": 1}})",
          "stream_options.include_usage", "true or false"},
      Row{R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]})",
          "tools", "not served"},
  };
  expect_refused(kRows, read_chat_request);
}

TEST(CompletionRequestTest, RefusesWhatLiesOutsideOfItsLimits) {
  constexpr std::array kRows = {
      Row{R"({"max_tokens": 1})", "prompt", "is missing"},
      Row{R"({"prompt": [[1], [100]]})", "prompt", "is 100, but must be token ids from 0 to 99"},
      Row{R"({"prompt": [[1], [1.5]]})", "prompt", "is 1.5"},
      Row{R"({"prompt": [1, "a"]})", "prompt", "is \"a\""},
      Row{R"({"prompt": "a", "seed": 1.5})", "seed", "a whole number"},
      Row{R"({"prompt": "a", "seed": 18446744073709551615})", "seed", "a whole number"},
      Row{R"({"prompt": "a", "min_p": -0.1})", "min_p", "from 0 to 1"},
      Row{R"({"prompt": "a", "presence_penalty": 2.5})", "presence_penalty", "from -2 to 2"},
      Row{R"({"prompt": "a", "repetition_penalty": 0})", "repetition_penalty", "from 0.01"},
      Row{R"({"prompt": "a", "logit_bias": []})", "logit_bias", "is a list"},
      Row{R"({"prompt": "a", "logit_bias": {"99999999999999999999": 1}})", "logit_bias",
          "from 0 to 99"},
      Row{R"({"prompt": "a", "stop_token_ids": [-1]})", "stop_token_ids", "is -1"},
      Row{R"({"prompt": ["a", "b"], "suffix": "c"})", "suffix", "one text"},
      Row{R"({"prompt": "a", "n": "0123456789012345678901234567890123456789012345"})", "n",
          "is \"012345678901234567890123456789012345678..., but"},
  };
  expect_refused(kRows, read_text_request);
}

TEST(CompletionRequestTest, RefusesBodiesThatAreNoObjects) {
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("\"a\""),
        std::string("{} {}"), std::string("{\"a\": 1e999}"), std::string("{\"a\": \"\xff\"}"),
        "{\"a\": " + std::string(64, '[') + std::string(64, ']') + "}"}) {
    try {
      parse_body(body);
      ADD_FAILURE() << body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status(), 400);
      EXPECT_EQ(error.code(), "invalid_json");
    }
  }
  EXPECT_NO_THROW(parse_body("{\"a\": " + std::string(63, '[') + "1" + std::string(63, ']') + "}"));
  const std::string brackets(100, '[');
  EXPECT_NO_THROW(parse_body("{\"" + brackets + "\": \"" + brackets + "\\\"" + brackets + "\"}"));
  EXPECT_NO_THROW(parse_body(R"({"a": [)" + std::string(200, ' ') + R"({}, {}, []], "b": "\\"})"));
}

TEST(CompletionRequestTest, ReadsAChat) {
  const auto request = read_chat_request(parse_body(R"({
    "messages": [{"role": "developer", "content": "Be brief."},
                 {"role": "user", "content": [{"type": "text", "text": "a"},
                                              {"type": "text", "text": "b"}]},
                 {"role": "assistant", "content": null, "tool_calls": []}],
    "max_tokens": 3, "max_completion_tokens": 4, "temperature": 0, "top_k": -1, "seed": -1,
    "stop": "x", "logit_bias": {"7": -1.5}, "logprobs": true, "n": 2, "stream": true,
    "stream_options": {"include_usage": true}, "tools": null, "response_format": {"type": "text"},
    "unheard_of": {"deep": [1]}})"),
                                         kVocabSize);
  EXPECT_TRUE(request.is_chat);
  ASSERT_EQ(request.messages.size(), 3U);
  EXPECT_EQ(request.messages[0].role, ChatRole::kSystem);
  EXPECT_EQ(request.messages[1].text, "ab");
  EXPECT_EQ(request.messages[2].text, "");
  EXPECT_EQ(request.max_tokens, 4);
  EXPECT_EQ(request.rules.seed, ~uint64_t{0});
  EXPECT_EQ(request.rules.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(request.rules.sampling.temperature, 0);
  EXPECT_EQ(request.rules.sampling.top_k, 0);
  EXPECT_EQ(request.rules.sampling.logprobs, 0);
  ASSERT_EQ(request.rules.sampling.bias.size(), 1U);
  EXPECT_EQ(request.rules.sampling.bias[0].first, 7);
  EXPECT_EQ(request.rules.sampling.bias[0].second, -1.5F);
  EXPECT_EQ(request.n, 2);
  EXPECT_TRUE(request.stream && request.include_usage);
}

TEST(CompletionRequestTest, ReadsTexts) {
  const auto read = [](std::string_view body) {
    return read_text_request(parse_body(body), kVocabSize);
  };
  const auto request = read(R"({"prompt": [[1, 2], "a"]})");
  ASSERT_EQ(request.prompts.size(), 2U);
  EXPECT_EQ(std::get<std::vector<int64_t>>(request.prompts[0]), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::get<std::string>(request.prompts[1]), "a");
  EXPECT_EQ(request.max_tokens, 16);
  EXPECT_EQ(request.rules.sampling.temperature, 1);
  EXPECT_EQ(request.rules.sampling.logprobs, std::nullopt);
  EXPECT_EQ(request.rules.seed, std::nullopt);
  EXPECT_EQ(read(R"({"prompt": []})").prompts.size(), 1U);
  EXPECT_EQ(read(R"({"prompt": "a", "echo": true, "max_tokens": 0})").max_tokens, 0);
  const auto gap = read(R"({"prompt": "a", "suffix": "b"})");
  EXPECT_EQ(gap.suffix, "b");
  EXPECT_EQ(gap.rules.sampling.temperature, 0);
}

}  // namespace
}  // namespace gemma::server
