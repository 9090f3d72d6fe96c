#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/engine/engine.h>
#include <gemma/engine/session_file.h>
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

std::vector<float> logprobs_of(Generation generation) {
  std::vector<float> logprobs;
  while (const auto token = generation.next()) logprobs.push_back(token->logprob);
  return logprobs;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

const GenerateRules kRules{
    .sampling = {.temperature = 1.0, .logprobs = 1}, .seed = 3, .max_tokens = 12};

class SessionFileTest : public ::testing::TestWithParam<Architecture> {
 protected:
  SessionFileTest() {
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
  }

  static GemmaConfig config() {
    auto config = tiny_config(GetParam());
    config.tokenizer = testing::data_path("tiny.model").string();
    config.max_position_embeddings = 300;
    return config;
  }

  // Two turns, longer than a block, with an image's tokens among them.
  Session two_turns(Engine& engine) const {
    const torch::NoGradGuard no_grad;
    std::mt19937 random(1);
    Ids prompt;
    for (int i = 0; i < 100; ++i) prompt.push_back(4 + static_cast<int64_t>(random() % 400));
    auto session = engine.session();
    const auto image = testing::random_tensor({20, model_->config().hidden_size}, /*seed=*/4);
    session.feed(prompt, std::vector<ImageTokens>{{30, image}});
    logprobs_of(session.generate(kRules));
    session.feed(Ids{10, 11, 12});
    return session;
  }

  const testing::TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "a.session";
  GemmaForCausalLM model_{config()};
};
INSTANTIATE_TEST_SUITE_P(All,
                         SessionFileTest,
                         ::testing::ValuesIn(kArchitectures),
                         architecture_name);

TEST_P(SessionFileTest, GoesOnWhereItWas) {
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    Engine engine(model_, {.kv_dtype = dtype});
    auto session = two_turns(engine);
    session.save(path_);
    const auto tokens = session.tokens();
    const auto want = logprobs_of(session.generate(kRules));

    Engine other(model_, {.kv_dtype = dtype, .prefix_cache = false});
    for (auto* from : {&engine, &other}) {
      auto loaded = from->load_session(path_);
      EXPECT_EQ(loaded.tokens(), tokens);
      auto generation = loaded.generate(kRules);
      EXPECT_TRUE(generation.next());
      EXPECT_GT(generation.cached_tokens(), 100);
      EXPECT_EQ(logprobs_of(from->load_session(path_).generate(kRules)), want);
      // What is forgotten goes through the model again, image and all.
      loaded.cancel();
      while (generation.next()) {
      }
      loaded.truncate(103);
      EXPECT_EQ(loaded.tokens(), Ids(tokens.begin(), tokens.begin() + 103));
      EXPECT_EQ(logprobs_of(loaded.generate(kRules)).size(), 12U);
    }
  }
}

TEST_P(SessionFileTest, HoldsWhatIsNotDoneYet) {
  Engine engine(model_);
  auto session = engine.session();
  session.save(path_);
  EXPECT_TRUE(engine.load_session(path_).tokens().empty());
  session.feed(Ids{5, 6, 7});
  session.save(path_);
  auto loaded = engine.load_session(path_);
  EXPECT_EQ(logprobs_of(loaded.generate(kRules)), logprobs_of(session.generate(kRules)));
}

TEST_P(SessionFileTest, LoadsWithoutRoomForItsCaches) {
  Engine engine(model_, {.prefix_cache = false});
  auto session = two_turns(engine);
  session.save(path_);
  const auto want = logprobs_of(session.generate(kRules));
  Engine small(model_, {.max_batch = 1, .prefix_cache = false});
  auto first = small.load_session(path_);
  // Of two that are loaded one has room; the other's text goes through the model again.
  std::vector<Session> sessions;
  for (int i = 0; i < 4; ++i) sessions.push_back(small.load_session(path_));
  for (auto& one : sessions) EXPECT_EQ(logprobs_of(one.generate(kRules)), want);
}

TEST_P(SessionFileTest, IsRefusedByAnotherModel) {
  Engine engine(model_);
  two_turns(engine).save(path_);
  const auto refusal = [&](Engine& other) {
    return message_of<std::runtime_error>([&] { other.load_session(path_); });
  };
  Engine wide(model_, {.kv_dtype = torch::kFloat32});
  EXPECT_TRUE(contains(refusal(wide),
                       "a.session: holds keys and values as bfloat16, but this "
                       "engine's are float32"));
  GemmaForCausalLM other(config());
  randomize(*other, /*seed=*/2);
  other->set_numerics(Numerics::kFast);
  Engine of_other(other);
  EXPECT_TRUE(
      contains(refusal(of_other), "was saved from a model with other weights or another config"));
  auto changed = config();
  changed.rms_norm_eps *= 2;
  GemmaForCausalLM similar(changed);
  randomize(*similar, /*seed=*/1);
  Engine of_similar(similar);
  EXPECT_TRUE(
      contains(refusal(of_similar), "was saved from a model with other weights or another config"));
}

TEST_P(SessionFileTest, AFileThatIsDamagedChangesNothing) {
  Engine engine(model_, {.prefix_cache = false});
  auto session = two_turns(engine);
  session.save(path_);
  const auto good = read(path_);
  const auto status = engine.status();
  const auto expect_refused = [&](const std::string& bytes) {
    write(path_, bytes);
    const auto message = message_of<std::runtime_error>([&] { engine.load_session(path_); });
    EXPECT_TRUE(contains(message, "a.session: "));
    EXPECT_FALSE(contains(message, "\n"));
  };
  // Cut, longer, and of another kind.
  for (const size_t size : {0UL, 1UL, 8UL, 100UL, good.size() / 2, good.size() - 1}) {
    expect_refused(good.substr(0, size));
  }
  expect_refused(good + "x");
  expect_refused("PK\3\4" + good);
  write(path_, good);
  // A bit in the names, the sizes, and everywhere in the data.
  const auto data = good.find("}}") + 2;
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    auto bytes = good;
    const auto at = good.find("\"dtype\"") + random() % (good.size() - good.find("\"dtype\""));
    // Blanks between header and data may become other blanks.
    if (at >= data && good[at] == ' ' && at < data + 64) continue;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    expect_refused(bytes);
  }
  EXPECT_EQ(engine.status().kv_bytes_free, status.kv_bytes_free);
  write(path_, good);
  EXPECT_EQ(logprobs_of(engine.load_session(path_).generate(kRules)),
            logprobs_of(session.generate(kRules)));
}

// Somebody who can make a checksum can say anything.
TEST_P(SessionFileTest, AFileThatMakesNoSenseIsRefused) {
  Engine engine(model_, {.prefix_cache = false});
  two_turns(engine).save(path_);
  NamedTensors good;
  {
    const auto file = Checkpoint::open(path_);
    for (const auto& entry : file.entries()) {
      if (entry.name != "crc32") good.emplace_back(entry.name, file.tensor(entry.name).clone());
    }
  }
  const auto status = engine.status();
  const auto expect_refused = [&](const std::string& name,
                                  const std::function<at::Tensor(at::Tensor)>& change) {
    SCOPED_TRACE(name);
    auto tensors = good;
    for (auto& [other, tensor] : tensors) {
      if (other == name) tensor = change(tensor.clone());
    }
    std::erase_if(tensors, [](const auto& tensor) { return !tensor.second.defined(); });
    write_session_file(path_, tensors);
    EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { engine.load_session(path_); }),
                         "a.session: "));
  };
  const auto set = [](int64_t index, int64_t value) {
    return [=](at::Tensor tensor) {
      tensor[index] = value;
      return tensor;
    };
  };
  const auto gone = [](const at::Tensor&) { return at::Tensor(); };
  const auto shorter = [](const at::Tensor& tensor) {
    return tensor.slice(0, 0, tensor.size(0) - 1).contiguous();
  };
  const auto other_dtype = [](const at::Tensor& tensor) { return tensor.to(at::kInt); };
  for (const auto& [name, tensor] : good) {
    expect_refused(name, gone);
    expect_refused(name, other_dtype);
    // An image of fewer tokens would be one, too.
    if (tensor.numel() > 0 && name != "images.0") expect_refused(name, shorter);
  }
  for (const int64_t length : {-1L, 35L, 1000L, INT64_MAX, INT64_MIN}) {
    expect_refused("session", set(2, length));
  }
  expect_refused("session", set(0, 2));
  expect_refused("tokens", set(5, -1));
  expect_refused("tokens", set(5, model_->config().vocab_size));
  for (const int64_t first : {-1L, 1000L, INT64_MAX, INT64_MIN}) {
    expect_refused("first_blocks", set(0, first));
    expect_refused("images", set(0, first));
  }
  expect_refused("images", set(0, 95));     // Over the answer.
  expect_refused("generated", set(40, 1));  // In the image.
  EXPECT_EQ(engine.status().kv_bytes_free, status.kv_bytes_free);
}

TEST_P(SessionFileTest, SaysWhereNothingCanBeReadOrWritten) {
  Engine engine(model_);
  EXPECT_THROW(engine.load_session("/nonexistent/a.session"), FileNotFound);
  auto session = engine.session();
  EXPECT_THROW(session.save("/nonexistent/a.session"), std::runtime_error);
}

}  // namespace
}  // namespace gemma
