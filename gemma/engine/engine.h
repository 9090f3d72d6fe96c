#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gemma/engine/model_runner.h>
#include <gemma/engine/scheduler.h>
#include <gemma/models/engine_model.h>
#include <gemma/ops/row_sampling.h>
#include <gemma/text/grammar.h>

namespace gemma {

struct EngineOptions {
  /// Of keys and values: float32 or bfloat16.
  torch::Dtype kv_dtype = torch::kBFloat16;
  /// Memory for keys and values, in bytes; without it, what max_batch texts as long as the model
  /// takes need, but at most half of the machine's. It is used as it is written to.
  std::optional<int64_t> kv_memory = std::nullopt;
  /// Most texts that are continued together; others wait.
  int64_t max_batch = 32;
  /// Most prompt tokens of a pass. An image is never cut.
  int64_t chunk = 512;
  /// Keeps the keys and values of prompts, in memory that nothing else needs, for texts that begin
  /// as they do. Not of models with recurrent layers, whose states say nothing of a beginning.
  bool prefix_cache = true;
  /// A smaller model of the same vocabulary, with fast numerics, which guesses what the texts are
  /// going to say, draft_tokens at a time: the texts are the same, in fewer passes of the larger
  /// model. Its keys and values are kept beside those of the texts. Not of models with recurrent
  /// layers, nor for texts with images.
  std::optional<EngineModel> draft = std::nullopt;
  int64_t draft_tokens = 4;  ///< 1 to 15.
};

/// How a text is continued.
struct GenerateRules {
  SamplingRules sampling = {};
  /// Of the text's own random numbers: the same seed draws the same from the same logits, whatever
  /// else is generated. Without it, one from LibTorch's default generator.
  std::optional<uint64_t> seed = std::nullopt;
  int64_t max_tokens = 100;
  /// Most tokens that are guessed at a time, from where the text said before what it says now (0:
  /// none). A pass then has the guess with the next token, and keeps what is what the model says:
  /// the text is the same, in fewer passes. Not of models with recurrent layers.
  int64_t prompt_lookup = 0;
  /// Tokens that end the text, besides eos. They do not become part of it.
  std::vector<int64_t> stop_ids = {};
  /// Strings that end the text before them. Their tokens remain.
  std::vector<std::string> stop = {};
  /// What the answer has to be: no token is chosen that cannot become part of it, and the text ends
  /// with it. Where max_tokens come first, it is the beginning of one. A grammar that takes more
  /// than a second, and 50 ms a token, ends its text with std::invalid_argument.
  std::optional<GrammarSource> grammar = std::nullopt;
  /// Higher ones first.
  int priority = 0;
  /// Seconds from now on after which the text ends; none: never.
  std::optional<double> timeout = std::nullopt;
};

/// A token of a text that is being generated, or of its prompt.
struct GeneratedToken {
  int64_t id;
  /// Whole characters that are known with it: those that may belong to a stop string come later.
  std::string text;
  /// With rules.sampling.logprobs or Request::prompt_logprobs; else, and of a prompt's first, NaN.
  float logprob;
  std::vector<TokenLogprob> top;  ///< Likewise.
};

struct EngineStatus {
  int64_t running, waiting;  ///< Texts.
  int64_t kv_bytes;          ///< Memory for keys and values: all,
  int64_t kv_bytes_free;     ///< what is free,
  int64_t kv_bytes_cached;   ///< and what only the prefix cache holds, until it is needed.
};

class EngineCore;
class GenerationState;
struct SessionState;

/// A text that is being generated, on the engine's thread. Ends when it is destroyed.
class Generation {
 public:
  explicit Generation(std::shared_ptr<GenerationState> state);
  ~Generation();
  Generation(Generation&&) noexcept;
  Generation& operator=(Generation&&) noexcept;

  /// Waits for the next token; none when the text has ended. Throws what went wrong:
  /// std::runtime_error for logits that are NaN or infinite, or that allow no token, and
  /// std::invalid_argument for a grammar that takes too long.
  std::optional<GeneratedToken> next();

  /// The same, but no longer than `seconds`: then `waited` is true and there is no token.
  std::optional<GeneratedToken> next(double seconds, bool& waited);

  /// Text that the last token left behind: a character that was never completed, or the beginning
  /// of a stop string. After next() has given none.
  const std::string& rest() const;
  /// After next() has given none.
  FinishReason finish_reason() const;
  /// Tokens of the text before this generation.
  int64_t prompt_tokens() const;
  /// How many of them did not go through the model for it: the session or the prefix cache had
  /// their keys and values. After next() has given a token or none.
  int64_t cached_tokens() const;
  /// Tokens that were guessed so far, and how many of them were right.
  int64_t guessed_tokens() const;
  int64_t accepted_tokens() const;

  /// From any thread.
  void cancel();

 private:
  std::shared_ptr<GenerationState> state_;
};

/// A text that is fed and continued in turns; what the model keeps of it stays. For one thread at a
/// time, except where it says otherwise.
class Session {
 public:
  explicit Session(std::shared_ptr<SessionState> state);

  /// Appends text as the tokenizer has it; bos is put before the first.
  void feed(const std::string& text);
  /// Appends tokens, with images among them. Throws std::invalid_argument for ids outside the
  /// vocabulary.
  void feed(std::span<const int64_t> tokens, std::span<const ImageTokens> images = {});

  /// Continues the text; its tokens become part of it. Throws std::invalid_argument for rules that
  /// cannot be, for an empty text and for one that fills the model's positions, and
  /// std::logic_error while it is being continued already. So do feed, truncate, fork and save.
  Generation generate(const GenerateRules& rules = {});

  /// Another session with the same text. Nothing is computed again, or copied before one goes on.
  Session fork() const;

  /// Forgets all but the first `size` tokens. Throws std::invalid_argument for more than there are.
  void truncate(int64_t size);

  /// Writes the text and what the model keeps of it, in the place of a file that is there. Throws
  /// std::runtime_error when it cannot be written.
  void save(const std::filesystem::path& path) const;

  /// All tokens so far, prompt and answers.
  std::vector<int64_t> tokens() const;

  /// Ends a generation, if there is one. From any thread.
  void cancel();

 private:
  std::shared_ptr<SessionState> state_;
};

/// How a text ended.
struct Ending {
  FinishReason reason;
  std::string rest;          ///< As Generation::rest.
  int64_t prompt_tokens;     ///< As Generation::prompt_tokens.
  int64_t cached_tokens;     ///< As Generation::cached_tokens.
  std::exception_ptr error;  ///< What went wrong; null unless reason is kError.
  /// That ended the text, and is no part of it.
  std::optional<GeneratedToken> stop_token = std::nullopt;
};

/// A text to be continued once.
struct Request {
  std::vector<int64_t> prompt;
  std::vector<ImageTokens> images = {};
  GenerateRules rules = {};
  /// Has the model say what it expects of the prompt's tokens, with so many of the likeliest in the
  /// place of each, by its own distribution. Then rules.max_tokens may be 0. Nothing of the prompt
  /// is taken from the prefix cache.
  std::optional<int64_t> prompt_logprobs = std::nullopt;
  /// The prompt's tokens with their probabilities, once, before the first that is generated.
  /// Otherwise as on_token.
  std::function<void(const std::vector<GeneratedToken>& tokens)> on_prompt = {};
  /// Each token as it comes, on the engine's thread. Must not call the engine. What it throws ends
  /// the text, and is thrown by generate().
  std::function<void(const GeneratedToken& token)> on_token = {};
  /// The end, once, on the engine's thread. Must neither call the engine nor throw.
  std::function<void(const Ending& ending)> on_end = {};
};

/// What a request became.
struct Answer {
  std::string text;
  std::vector<GeneratedToken> tokens;
  std::vector<GeneratedToken> prompt;  ///< Its tokens, with Request::prompt_logprobs.
  FinishReason finish_reason;
  int64_t prompt_tokens;
  int64_t cached_tokens;                    ///< As Generation::cached_tokens.
  int64_t guessed_tokens, accepted_tokens;  ///< As Generation's.
};

/// Continues any number of texts at once, on a thread of its own. From any threads. A text and its
/// bits do not depend on the others.
class Engine {
 public:
  /// The model needs a tokenizer, and fast numerics for what is said above. Throws
  /// std::invalid_argument for options that cannot be, std::logic_error without a tokenizer.
  explicit Engine(EngineModel model, const EngineOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Session session();

  /// What Session::save wrote, of this model and kv_dtype. Where memory has no room for what was
  /// kept, the text goes through the model again. Throws FileNotFound, and std::runtime_error for a
  /// file that is damaged, something else, or of another model.
  Session load_session(const std::filesystem::path& path);

  /// Continues them all -> the answers, in the order of the requests. A prompt that is the same as
  /// that of the request before it does not go through the model again. Throws as
  /// Session::generate, and what went wrong first; then the others have ended, too.
  std::vector<Answer> generate(std::vector<Request> requests);

  /// The same without waiting: on_token and on_end of the requests tell what comes of them, and
  /// next() of the results gives none of their tokens. What throws submits none of them.
  std::vector<Generation> submit(std::vector<Request> requests);

  /// Makes a grammar ready, so that texts with it begin at once. Throws as GrammarCompiler does; so
  /// does whatever takes rules with a grammar.
  void prepare(const GrammarSource& grammar);

  EngineStatus status() const;

 private:
  std::shared_ptr<EngineCore> core_;
};

}  // namespace gemma
