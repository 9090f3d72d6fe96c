#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gemma/server/answer_form.h>
#include <gemma/server/completion_request.h>
#include <gemma/server/json.h>

// llama.cpp's /infill, which editors ask for what is missing at the cursor.
namespace gemma::server {

/// The body of a request: {input_prefix, input_suffix, input_extra, prompt, n_predict}, and the
/// rules of /v1/completions. Throws ApiError as read_text_request does.
CompletionRequest read_infill_request(const JsonValue& body, int64_t vocab_size);

/// {"content", "stop", …}; the last event of a stream has no content, but the counts.
class InfillForm : public AnswerForm {
 public:
  explicit InfillForm(std::string model);

  const std::string& id() const override { return id_; }
  std::string whole(std::span<const ChoicePart> choices, const AnswerCost& cost) override;
  std::string begin(int64_t choice) override;
  std::string part(const ChoicePart& part) override;
  std::string end(const AnswerCost& cost) override;
  std::string error(const ApiError& error) override;

 private:
  Json last(std::string content, FinishReason reason, const AnswerCost& cost) const;

  std::string id_, model_;
  FinishReason reason_ = FinishReason::kLength;
};

}  // namespace gemma::server
