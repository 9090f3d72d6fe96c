#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gemma/server/answer_form.h>
#include <gemma/server/completion_json.h>
#include <gemma/server/completion_request.h>
#include <gemma/server/http.h>
#include <gemma/server/metrics.h>
#include <gemma/server/served_model.h>

namespace gemma::server {

/// What all answers of a server share.
struct CompletionContext {
  std::string model_name;
  /// Most texts that run and wait.
  int64_t max_texts;
  /// Seconds until a text ends whether it is complete or not.
  std::optional<double> timeout;
  int64_t prompt_lookup;  ///< As GenerateRules'.
  std::function<void(const std::string& line)> log;
  Metrics metrics = {};
  std::atomic<int64_t> texts = 0;  ///< That run and wait.
};

/// Answers one request: hands its texts to the model, and what becomes of them to the client. It
/// lives as long as its texts.
class Completion : public std::enable_shared_from_this<Completion> {
 public:
  /// Both references have to outlive the texts. Throws ApiError when the request cannot be
  /// answered; then `reply` has nothing yet.
  static void start(ServedModel& model,
                    CompletionContext& context,
                    CompletionRequest request,
                    std::shared_ptr<AnswerForm> form,
                    std::shared_ptr<HttpReply> reply);

  Completion(ServedModel& model,
             CompletionContext& context,
             CompletionRequest request,
             std::shared_ptr<AnswerForm> form,
             std::shared_ptr<HttpReply> reply);

 private:
  using Clock = std::chrono::steady_clock;

  // One of the texts.
  struct Choice {
    std::vector<int64_t> prompt;
    std::string text;                    // Of a stream what is not sent yet, else all.
    std::vector<GeneratedToken> tokens;  // Likewise, where probabilities are asked for.
    int64_t offset = 0;                  // Characters before `tokens`.
    bool hides_bos = false;              // It is not among the tokens of the request.
    int64_t generated = 0;
    std::optional<Clock::time_point> last = std::nullopt;  // When the last token came.
    std::optional<FinishReason> finish_reason = std::nullopt;
    std::shared_ptr<void> handle = nullptr;  // Ends the text when it goes.
  };

  void prepare();
  std::string decode(const std::vector<int64_t>& tokens) const;
  void take_places();
  void begin_stream();
  void submit_all();
  void end_unasked();
  bool is_over();
  void give_up(const ApiError& error);
  Request request_for(size_t index);
  void on_prompt(size_t index, const std::vector<GeneratedToken>& tokens);
  void on_token(size_t index, const GeneratedToken& token);
  void on_end(size_t index, const Ending& ending);
  void on_gone();
  void count_end(size_t index, const Ending& ending);
  void send_part(size_t index);
  void finish();
  void fail(const ApiError& error);
  void end_others();
  ChoicePart part_of(size_t index) const;
  bool wants_scores() const { return request_.echo && wants_logprobs(); }  // Of the prompt.
  bool wants_logprobs() const { return request_.rules.sampling.logprobs.has_value(); }

  ServedModel& model_;
  CompletionContext& context_;
  const CompletionRequest request_;
  const std::shared_ptr<AnswerForm> form_;
  const Clock::time_point start_ = Clock::now();
  std::vector<int64_t> stop_ids_;
  std::vector<ImageTokens> images_;  // Of a chat's prompt.

  std::mutex mutex_;
  std::shared_ptr<HttpReply> reply_;  // Until the answer is complete.
  std::vector<Choice> choices_;
  size_t ended_ = 0;
  AnswerCost cost_;
};

}  // namespace gemma::server
