// Bodies of requests that are nearly right: each is read, or refused with an error that a client
// can read.

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <gemma/server/completion_request.h>
#include <gemma/server/infill.h>
#include <gemma/server/response_request.h>

namespace gemma::server {
namespace {

constexpr int64_t kVocabSize = 100;
constexpr int kMutations = 4000;

const std::vector<std::string> kBodies = {
    R"({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content":
        [{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "c"}]}], "max_tokens": 4,
        "logprobs": true, "top_logprobs": 2, "stop": ["a", "b"], "response_format":
        {"type": "text"}, "tools": [], "stream_options": {"include_usage": true}})",
    R"({"prompt": [[1, 2], "a"], "logit_bias": {"7": -100, "8": 1e2}, "n": 2, "echo": true,
        "logprobs": 1, "best_of": 2, "seed": -1, "stop_token_ids": [1, 2], "temperature": 0.5})",
    R"({"prompt": "a", "suffix": "b", "max_tokens": 3, "top_k": 5, "top_p": 0.5, "min_p": 0.1})",
    R"({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:"}]}, {"type": "message", "role": "assistant",
        "content": "b"}], "instructions": "c", "max_output_tokens": 3, "text": {"format":
        {"type": "json_schema", "name": "d", "schema": {}}}, "tools": [], "include":
        ["message.output_text.logprobs"], "top_logprobs": 3, "truncation": "disabled",
        "background": false, "previous_response_id": null, "stream": true})",
    R"({"input_prefix": "a", "input_suffix": "b", "prompt": "c", "n_predict": 4, "input_extra":
        [{"filename": "d", "text": "e"}, {"text": "f"}], "repetition_penalty": 1.5})"};

// What stands in the place of another value, or beside it.
const std::vector<JsonValue> kValues = {nullptr,
                                        true,
                                        false,
                                        0,
                                        -1,
                                        1,
                                        7,
                                        1e300,
                                        0.5,
                                        18446744073709551615U,
                                        "",
                                        "text",
                                        "message",
                                        "\xf0\x9f\x98\x80",
                                        JsonValue::array(),
                                        JsonValue::object(),
                                        JsonValue::array({1, "a"}),
                                        JsonValue{{"type", "text"}, {"text", "a"}}};

size_t below(std::mt19937& random, size_t count) { return random() % count; }

// All values in it, the object itself first.
void collect(JsonValue& value, std::vector<JsonValue*>& all) {
  all.push_back(&value);
  if (value.is_structured()) {
    for (auto& inner : value) collect(inner, all);
  }
}

void mutate(JsonValue& body, std::mt19937& random) {
  std::vector<JsonValue*> all;
  collect(body, all);
  auto& place = *all[below(random, all.size())];
  const auto kind = below(random, 3);
  const auto& other = kValues[below(random, kValues.size())];
  if (kind == 0 && &place != &body) {
    place = other;
  } else if (kind == 1 && place.is_array()) {
    place.push_back(other);
  } else if (kind == 2 && place.is_object() && !place.empty()) {
    const auto chosen = std::next(place.begin(), static_cast<int64_t>(below(random, place.size())));
    place.erase(chosen);
  } else if (&place != &body) {
    place = *all[below(random, all.size())];
  }
}

// Only read requests are looked at further.
void read(const JsonValue& body, const std::function<CompletionRequest(const JsonValue&)>& reader) {
  try {
    const auto request = reader(body);
    EXPECT_TRUE(request.n >= 1 && request.n <= 128);
    EXPECT_GE(request.max_tokens.value_or(0), 0);
    EXPECT_NE(request.messages.empty(), request.prompts.empty());
    for (const auto& [token, bias] : request.rules.sampling.bias) {
      EXPECT_TRUE(token >= 0 && token < kVocabSize && bias >= -100 && bias <= 100);
    }
  } catch (const ApiError& error) {
    const auto text = error.body();
    EXPECT_EQ(error.status(), 400);
    EXPECT_FALSE(error.param().empty());
    EXPECT_LT(text.size(), 1000U);
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c >= ' ' && c < 0x7f; })) << text;
  }
}

class BodyMutationsTest : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(All, BodyMutationsTest, ::testing::Range<size_t>(0, kBodies.size()));

TEST_P(BodyMutationsTest, AreReadOrRefused) {
  std::mt19937 random(static_cast<uint32_t>(GetParam()));
  const auto whole = JsonValue::parse(kBodies[GetParam()]);
  for (int i = 0; i < kMutations; ++i) {
    auto body = whole;
    for (auto count = 1 + below(random, 3); count > 0; --count) mutate(body, random);
    if (!body.is_object()) continue;
    SCOPED_TRACE(body.dump());
    read(body, [](const JsonValue& value) { return read_chat_request(value, kVocabSize); });
    read(body, [](const JsonValue& value) { return read_text_request(value, kVocabSize); });
    read(body, [](const JsonValue& value) { return read_infill_request(value, kVocabSize); });
    read(body, [](const JsonValue& value) {
      return read_response_request(value, kVocabSize).completion;
    });
  }
}

}  // namespace
}  // namespace gemma::server
