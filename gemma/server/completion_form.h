#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <gemma/server/answer_form.h>
#include <gemma/text/tokenizer.h>

namespace gemma::server {

/// That of /v1/chat/completions and /v1/completions.
class CompletionForm : public AnswerForm {
 public:
  /// include_usage: the usage is told at the end of a stream. The tokenizer has to outlive this.
  CompletionForm(bool is_chat, std::string model, bool include_usage, const Tokenizer& tokenizer);

  const std::string& id() const override { return head_.id; }
  std::string whole(std::span<const ChoicePart> choices, const AnswerCost& cost) override;
  std::string begin(int64_t choice) override;
  std::string part(const ChoicePart& part) override;
  std::string end(const AnswerCost& cost) override;
  std::string error(const ApiError& error) override;

 private:
  AnswerHead head_;
  bool include_usage_;
  const Tokenizer& tokenizer_;
};

}  // namespace gemma::server
