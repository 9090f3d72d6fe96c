#include <atomic>
#include <cstdlib>
#include <future>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/engine.h>
#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::contains;
using testing::kArchitectures;
using testing::message_of;
using testing::randomize;
using testing::tiny_config;

using Ids = std::vector<int64_t>;

Ids ids_of(const std::vector<GeneratedToken>& tokens) {
  Ids ids;
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

Ids take_all(Generation generation) {
  Ids ids;
  while (const auto token = generation.next()) ids.push_back(token->id);
  return ids;
}

class EngineTest : public ::testing::TestWithParam<Architecture> {
 protected:
  EngineTest() {
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
  }

  static GemmaConfig config() {
    auto config = tiny_config(GetParam());
    config.tokenizer = testing::data_path("tiny.model").string();
    config.max_position_embeddings = 300;
    return config;
  }

  Request random_request(std::mt19937& random) const {
    Request request;
    const auto length = 1 + static_cast<int64_t>(random() % 90);
    for (int64_t i = 0; i < length; ++i) {
      request.prompt.push_back(4 + static_cast<int64_t>(random() % 400));
    }
    auto& rules = request.rules;
    rules.max_tokens = 1 + static_cast<int64_t>(random() % 40);
    rules.seed = random();
    rules.sampling.temperature = static_cast<double>(random() % 3) * 0.6;
    if (random() % 2 == 0) rules.sampling.top_p = 0.9;
    if (random() % 3 == 0) rules.sampling.top_k = 20;
    if (random() % 3 == 0) rules.sampling.repetition_penalty = 1.3;
    if (random() % 3 == 0) rules.sampling.frequency_penalty = 0.4;
    if (random() % 4 == 0) rules.sampling.bias = {{7, 3.0F}, {9, -3.0F}};
    if (random() % 4 == 0) rules.sampling.logprobs = 3;
    return request;
  }

  std::vector<Request> random_requests(int count) const {
    std::mt19937 random(5);
    std::vector<Request> requests;
    for (int i = 0; i < count; ++i) requests.push_back(random_request(random));
    return requests;
  }

  // One after the other, on an engine that has nothing else to do.
  std::vector<Answer> alone(const std::vector<Request>& requests) const {
    Engine engine(model_, {.kv_dtype = torch::kFloat32, .max_batch = 1});
    std::vector<Answer> answers;
    for (const auto& request : requests) answers.push_back(engine.generate({request})[0]);
    return answers;
  }

  static void expect_same(const std::vector<Answer>& got, const std::vector<Answer>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(ids_of(got[i].tokens), ids_of(want[i].tokens)) << "text " << i;
      EXPECT_EQ(got[i].text, want[i].text);
      EXPECT_EQ(got[i].finish_reason, want[i].finish_reason);
      for (size_t t = 0; t < got[i].tokens.size(); ++t) {
        const auto& a = got[i].tokens[t];
        const auto& b = want[i].tokens[t];
        EXPECT_TRUE(a.logprob == b.logprob || (std::isnan(a.logprob) && std::isnan(b.logprob)));
      }
    }
  }

  static void expect_nothing_held(const Engine& engine) {
    const auto status = engine.status();
    EXPECT_EQ(status.kv_bytes_free + status.kv_bytes_cached, status.kv_bytes);
    EXPECT_EQ(status.running + status.waiting, 0);
  }

  GemmaForCausalLM model_{config()};
};
INSTANTIATE_TEST_SUITE_P(All, EngineTest, ::testing::ValuesIn(kArchitectures), architecture_name);

TEST_P(EngineTest, ATextDoesNotDependOnWhatIsGeneratedBesideIt) {
  const auto requests = random_requests(60);
  const auto want = alone(requests);
  Engine engine(model_, {.kv_dtype = torch::kFloat32, .max_batch = 20});
  expect_same(engine.generate(requests), want);
  expect_nothing_held(engine);
}

// Room for two long texts: the others wait, pause, and go through the model again.
TEST_P(EngineTest, ATextDoesNotDependOnMemoryThatIsShort) {
  const auto requests = random_requests(40);
  const auto want = alone(requests);
  const Engine small(model_, {.kv_dtype = torch::kFloat32, .max_batch = 2});
  Engine engine(
      model_, {.kv_dtype = torch::kFloat32, .kv_memory = small.status().kv_bytes, .max_batch = 20});
  expect_same(engine.generate(requests), want);
  expect_nothing_held(engine);
}

// What is said again and again is guessed. Texts of a random model soon say it.
TEST_P(EngineTest, GuessesChangeNoText) {
  auto requests = random_requests(40);
  std::mt19937 random(8);
  for (auto& request : requests) {
    const auto prompt = request.prompt;
    while (request.prompt.size() < 60) {
      request.prompt.insert(request.prompt.end(), prompt.begin(), prompt.end());
    }
    if (random() % 3 == 0) request.rules.sampling.bias = {{request.prompt.back(), 9.0F}};
    if (random() % 4 == 0) request.rules.stop_ids = {4 + static_cast<int64_t>(random() % 400)};
  }
  const auto want = alone(requests);
  for (auto& request : requests) {
    request.rules.prompt_lookup = 1 + static_cast<int64_t>(random() % 12);
  }
  Engine engine(model_, {.kv_dtype = torch::kFloat32, .max_batch = 5});
  const Engine small(model_, {.kv_dtype = torch::kFloat32, .max_batch = 2});
  Engine short_of_memory(
      model_, {.kv_dtype = torch::kFloat32, .kv_memory = small.status().kv_bytes, .max_batch = 20});
  for (auto* const any : {&engine, &short_of_memory}) {
    const auto got = any->generate(requests);
    expect_same(got, want);
    expect_nothing_held(*any);
    int64_t guessed = 0, accepted = 0;
    for (const auto& answer : got) {
      EXPECT_LE(answer.accepted_tokens, answer.guessed_tokens);
      guessed += answer.guessed_tokens;
      accepted += answer.accepted_tokens;
    }
    EXPECT_GT(accepted, 50);
    EXPECT_GT(guessed, accepted + 20);
  }
}

// One that is right wherever the likeliest token is taken, and one that hardly ever is.
TEST_P(EngineTest, ADraftModelChangesNoText) {
  auto requests = random_requests(40);
  for (size_t i = 0; i < requests.size(); i += 2) requests[i].rules.sampling = {.temperature = 0};
  const auto want = alone(requests);
  GemmaForCausalLM other(config());
  randomize(*other, /*seed=*/2);
  other->set_numerics(Numerics::kFast);
  for (const auto& draft : {model_, other}) {
    const bool is_same = draft.ptr() == model_.ptr();
    for (const int64_t tokens : {1, 4, 9}) {
      Engine engine(
          model_,
          {.kv_dtype = torch::kFloat32, .max_batch = 5, .draft = draft, .draft_tokens = tokens});
      const auto got = engine.generate(requests);
      expect_same(got, want);
      expect_nothing_held(engine);
      int64_t guessed = 0, accepted = 0;
      for (size_t i = 0; i < got.size(); i += 2) {
        guessed += got[i].guessed_tokens;
        accepted += got[i].accepted_tokens;
      }
      EXPECT_GT(guessed, 100);
      EXPECT_EQ(accepted * 10 > guessed * 9, is_same) << accepted << " of " << guessed;
    }
  }
}

TEST_P(EngineTest, ADraftModelFollowsASession) {
  const auto said_by = [&](Engine& engine) {
    auto session = engine.session();
    Ids said;
    for (const int64_t length : {5, 90, 2}) {
      session.feed(Ids(static_cast<size_t>(length), 11));
      const auto ids =
          take_all(session.generate({.sampling = {.temperature = 0}, .max_tokens = 30}));
      said.insert(said.end(), ids.begin(), ids.end());
      session.truncate(std::ssize(session.tokens()) - 3);
    }
    return said;
  };
  Engine plain(model_, {.kv_dtype = torch::kFloat32});
  Engine drafted(model_, {.kv_dtype = torch::kFloat32, .draft = model_});
  EXPECT_EQ(said_by(drafted), said_by(plain));
}

TEST_P(EngineTest, ADraftModelHasToFit) {
  auto other = config();
  other.vocab_size -= 8;
  const GemmaForCausalLM smaller(other);
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([&] { Engine(model_, {.draft = smaller}); }),
               "engine: the draft model has a vocabulary of"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>(
                           [&] { Engine(model_, {.draft = model_, .draft_tokens = 16}); }),
                       "engine: draft_tokens is 16, but must be 1 to 15"));
}

TEST_P(EngineTest, ASeedSaysWhatGenerateSaysFromIt) {
  for (const auto temperature : {0.0, 1.0}) {
    at::manual_seed(9);
    const auto want = model_->generate("The ferry leaves at noon", at::kCPU, 30, temperature, 0.95,
                                       64, {.kv_dtype = torch::kFloat32});
    Engine engine(model_, {.kv_dtype = torch::kFloat32});
    Request request{.prompt = model_->tokenizer().encode("The ferry leaves at noon")};
    request.rules = {.sampling = {.temperature = temperature, .top_p = 0.95, .top_k = 64},
                     .seed = 9,
                     .max_tokens = 30};
    EXPECT_EQ(engine.generate({request})[0].text, want);
  }
}

TEST_P(EngineTest, ASessionGoesOnWhereItWas) {
  const GenerateRules rules{.sampling = {.temperature = 1.0}, .seed = 3, .max_tokens = 12};
  Engine engine(model_, {.kv_dtype = torch::kFloat32});
  auto session = engine.session();
  session.feed("The ferry leaves");
  const auto prompt = session.tokens();
  const auto first = take_all(session.generate(rules));
  session.feed(Ids{10, 11, 12});
  const auto second = take_all(session.generate(rules));

  // The same in one piece: what was generated goes through the model as it did.
  auto whole = prompt;
  whole.insert(whole.end(), first.begin(), first.end());
  whole.insert(whole.end(), {10, 11, 12});
  whole.insert(whole.end(), second.begin(), second.end());
  EXPECT_EQ(session.tokens(), whole);

  // Back to the first turn's end, and on again: the same.
  session.truncate(std::ssize(prompt) + std::ssize(first));
  session.feed(Ids{10, 11, 12});
  EXPECT_EQ(take_all(session.generate(rules)), second);
  session.truncate(std::ssize(prompt));
  EXPECT_EQ(take_all(session.generate(rules)), first);
}

TEST_P(EngineTest, AForkGoesOnAsItsOriginDoes) {
  Engine engine(model_, {.kv_dtype = torch::kFloat32});
  auto session = engine.session();
  session.feed("The ferry leaves at noon");
  take_all(session.generate({.max_tokens = 5}));
  std::vector<Session> forks;
  for (int i = 0; i < 5; ++i) forks.push_back(session.fork());
  std::vector<Generation> generations;
  const auto rules = [](uint64_t seed) {
    return GenerateRules{.sampling = {.temperature = 1.0}, .seed = seed, .max_tokens = 20};
  };
  for (uint64_t i = 0; i < 5; ++i) generations.push_back(forks[i].generate(rules(i % 2)));
  std::vector<Ids> texts;
  for (auto& generation : generations) texts.push_back(take_all(std::move(generation)));
  EXPECT_EQ(texts[0], texts[2]);
  EXPECT_EQ(texts[1], texts[3]);
  EXPECT_NE(texts[0], texts[1]);
  EXPECT_EQ(take_all(session.generate(rules(0))), texts[0]);
}

TEST_P(EngineTest, StopStringsEndTheTextBeforeThem) {
  Engine engine(model_);
  Request request{.prompt = model_->tokenizer().encode("The ferry")};
  request.rules = {.sampling = {.temperature = 1.0}, .seed = 4, .max_tokens = 40};
  const auto whole = engine.generate({request})[0];
  ASSERT_GT(whole.text.size(), 20U);
  request.rules.stop = {whole.text.substr(8, 5)};
  const auto cut = engine.generate({request})[0];
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.rules.stop[0])));
  EXPECT_EQ(cut.finish_reason, FinishReason::kStop);
}

TEST_P(EngineTest, EndsForEachReason) {
  Engine engine(model_);
  auto session = engine.session();
  session.feed("The ferry");
  auto endless = session.generate({.max_tokens = 1'000'000});
  EXPECT_TRUE(endless.next());
  EXPECT_TRUE(contains(message_of<std::logic_error>([&] { session.feed("more"); }),
                       "feed while the text is being continued"));
  endless.cancel();
  while (endless.next()) {
  }
  EXPECT_EQ(endless.finish_reason(), FinishReason::kCancelled);

  session.truncate(3);
  auto full =
      session.generate({.sampling = {.bias = {{1, -std::numeric_limits<float>::infinity()}}},
                        .max_tokens = 1'000'000});
  while (full.next()) {
  }
  EXPECT_EQ(full.finish_reason(), FinishReason::kLength);
  EXPECT_EQ(std::ssize(session.tokens()), model_->config().max_position_embeddings);
  EXPECT_THROW(session.generate(), std::invalid_argument);

  session.truncate(3);
  auto late = session.generate({.max_tokens = 10, .timeout = 0.0});
  EXPECT_FALSE(late.next());
  EXPECT_EQ(late.finish_reason(), FinishReason::kDeadline);
}

TEST_P(EngineTest, SaysWhatIsWrong) {
  Engine engine(model_);
  auto session = engine.session();
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { session.generate(); }),
                       "the text is empty"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { session.feed(Ids{451}); }),
                       "token 451 is not below the vocabulary's size, 451"));
  session.feed("The ferry");
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([&] { session.generate({.max_tokens = 0}); }),
               "max_tokens is 0, but must be 1 or more"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>(
                           [&] { session.generate({.sampling = {.temperature = -1}}); }),
                       "temperature is -1"));
  // One text's fault is not another's.
  std::vector<std::pair<int64_t, float>> nothing;
  for (int64_t token = 0; token < 451; ++token) {
    nothing.emplace_back(token, -std::numeric_limits<float>::infinity());
  }
  auto other = engine.session();
  other.feed("We");
  auto good = other.generate({.max_tokens = 30});
  auto bad = session.generate({.sampling = {.bias = nothing}});
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { bad.next(); }), "no token is allowed"));
  EXPECT_FALSE(take_all(std::move(good)).empty());

  model_->model->norm->weight.fill_(std::numeric_limits<float>::quiet_NaN());
  auto broken = other.generate();
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { broken.next(); }),
                       "the weights hold NaN or infinite numbers"));
}

// How many texts the test below asks for; scripts/test.sh --all wants more than there is time for
// otherwise.
int random_texts() {
  const auto* const given = std::getenv("GEMMA_TEST_TEXTS");
  return given == nullptr ? 320 : std::stoi(given);
}

// From many threads, cut short at any point.
TEST_P(EngineTest, NoBlockIsLostWhereTextsAreCancelled) {
  constexpr unsigned kThreads = 8;
  Engine engine(model_, {.kv_memory = 1 << 21, .max_batch = 6});
  std::vector<std::future<void>> threads;
  for (unsigned seed = 0; seed < kThreads; ++seed) {
    threads.push_back(std::async(std::launch::async, [&engine, seed, this] {
      std::mt19937 random(seed);
      for (auto left = random_texts() / kThreads; left > 0; --left) {
        auto request = random_request(random);
        auto session = engine.session();
        session.feed(request.prompt);
        auto generation = session.generate(request.rules);
        for (auto tokens = random() % 20; tokens > 0; --tokens) {
          if (!generation.next()) break;
        }
        if (random() % 2 == 0) session.cancel();
        if (random() % 3 == 0) continue;  // The generation ends as it is destroyed.
        while (generation.next()) {
        }
        if (random() % 2 == 0) session.truncate(std::ssize(session.tokens()) / 2);
        const auto fork = session.fork();
      }
    }));
  }
  for (auto& thread : threads) thread.get();
  // What was just destroyed leaves between passes.
  for (int i = 0; i < 1000 && engine.status().running + engine.status().waiting > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  expect_nothing_held(engine);
}

TEST_P(EngineTest, WhatIsSubmittedIsToldByCallbacks) {
  const auto requests = random_requests(30);
  const auto want = alone(requests);
  std::vector<Answer> got(requests.size());
  std::vector<Generation> generations;
  std::atomic<size_t> ended = 0;
  {
    Engine engine(model_, {.kv_dtype = torch::kFloat32, .max_batch = 10});
    for (size_t i = 0; i < requests.size(); ++i) {
      auto request = requests[i];
      request.on_token = [&answer = got[i]](const GeneratedToken& token) {
        answer.text += token.text;
        answer.tokens.push_back(token);
      };
      request.on_end = [&answer = got[i], &ended](const Ending& ending) {
        answer.text += ending.rest;
        answer.finish_reason = ending.reason;
        EXPECT_FALSE(ending.error);
        ++ended;
      };
      generations.push_back(std::move(engine.submit({std::move(request)}).front()));
    }
    for (auto& generation : generations) EXPECT_FALSE(generation.next());
    while (ended < requests.size()) std::this_thread::yield();
    expect_nothing_held(engine);
  }
  expect_same(got, want);
}

TEST_P(EngineTest, WhatIsSubmittedEndsWithItsHandleAndWithTheEngine) {
  std::atomic<int> ended = 0;
  const auto request = [&] {
    return Request{.prompt = {4, 5, 6},
                   .rules = {.max_tokens = 1'000'000},
                   .on_end = [&](const Ending& /*ending*/) { ++ended; }};
  };
  std::optional<Generation> other;
  {
    Engine engine(model_, {.kv_dtype = torch::kFloat32});
    std::optional<Generation> generation = std::move(engine.submit({request()}).front());
    generation.reset();
    while (ended == 0) std::this_thread::yield();
    expect_nothing_held(engine);
    other = std::move(engine.submit({request()}).front());
  }
  EXPECT_EQ(ended, 2);
  EXPECT_FALSE(other->next());
}

TEST_P(EngineTest, EndsWithTextsUnderWay) {
  std::optional<Session> session;
  std::optional<Generation> generation;
  {
    Engine engine(model_);
    session = engine.session();
    session->feed("The ferry");
    generation = session->generate({.max_tokens = 1'000'000});
    EXPECT_TRUE(generation->next());
  }
  while (generation->next()) {
  }
  EXPECT_EQ(generation->finish_reason(), FinishReason::kCancelled);
  EXPECT_FALSE(session->tokens().empty());
  EXPECT_TRUE(
      contains(message_of<std::logic_error>([&] { session->generate(); }), "the engine is gone"));
  session->feed("more");
}

}  // namespace
}  // namespace gemma
