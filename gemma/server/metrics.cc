#include <iterator>

#include <fmt/format.h>

#include <gemma/server/metrics.h>

namespace gemma::server {
namespace {

std::string head(std::string_view name, std::string_view type, std::string_view help) {
  return fmt::format("# HELP gemma:{0} {2}\n# TYPE gemma:{0} {1}\n", name, type, help);
}

std::string single(std::string_view name,
                   std::string_view type,
                   std::string_view help,
                   int64_t value) {
  return head(name, type, help) + fmt::format("gemma:{} {}\n", name, value);
}

std::string engine_text(const EngineStatus& engine) {
  return single("num_requests_running", "gauge", "Texts that are being continued.",
                engine.running) +
         single("num_requests_waiting", "gauge", "Texts that wait.", engine.waiting) +
         single("kv_bytes", "gauge", "Memory for keys and values.", engine.kv_bytes) +
         single("kv_bytes_free", "gauge", "What nobody holds of it.", engine.kv_bytes_free) +
         single("kv_bytes_cached", "gauge", "What only the prefix cache holds of it.",
                engine.kv_bytes_cached);
}

}  // namespace

void Histogram::add(double seconds) {
  for (size_t i = 0; i < kLimits.size(); ++i) counts_[i] += seconds <= kLimits[i];
  ++count_;
  sum_ += seconds;
}

std::string Histogram::text(std::string_view name, std::string_view help) const {
  auto text = head(name, "histogram", help);
  const auto out = std::back_inserter(text);
  for (size_t i = 0; i < kLimits.size(); ++i) {
    fmt::format_to(out, "gemma:{}_bucket{{le=\"{:g}\"}} {}\n", name, kLimits[i], counts_[i]);
  }
  fmt::format_to(out,
                 "gemma:{0}_bucket{{le=\"+Inf\"}} {1}\ngemma:{0}_sum {2}\ngemma:{0}_count {1}\n",
                 name, count_, sum_);
  return text;
}

double Histogram::mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

void Metrics::add_first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.add(seconds);
}

void Metrics::add_between_tokens(double seconds) {
  const std::lock_guard lock(mutex_);
  between_tokens_.add(seconds);
}

void Metrics::add_text(FinishReason reason, int64_t completion_tokens, double seconds) {
  const std::lock_guard lock(mutex_);
  ++ended_[reason];
  completion_tokens_ += completion_tokens;
  text_.add(seconds);
}

void Metrics::add_prompt(int64_t tokens, int64_t cached) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += tokens;
  cached_tokens_ += cached;
}

void Metrics::add_answer(int status) {
  const std::lock_guard lock(mutex_);
  ++answers_[status];
}

double Metrics::text_seconds() const {
  const std::lock_guard lock(mutex_);
  return text_.mean();
}

std::string Metrics::text(const std::optional<EngineStatus>& engine) const {
  const std::lock_guard lock(mutex_);
  auto text =
      single("prompt_tokens_total", "counter", "Tokens of prompts.", prompt_tokens_) +
      single("prompt_tokens_cached_total", "counter", "Those that did not go through the model.",
             cached_tokens_) +
      single("generation_tokens_total", "counter", "Tokens of answers.", completion_tokens_);
  const auto out = std::back_inserter(text);
  text += head("request_success_total", "counter", "Texts that have ended, by the reason.");
  for (const auto& [reason, count] : ended_) {
    fmt::format_to(out, "gemma:request_success_total{{reason=\"{}\"}} {}\n", to_string(reason),
                   count);
  }
  text += head("http_answers_total", "counter", "Answers, by their status.");
  for (const auto& [status, count] : answers_) {
    fmt::format_to(out, "gemma:http_answers_total{{status=\"{}\"}} {}\n", status, count);
  }
  text += first_token_.text("time_to_first_token_seconds", "From a request to its first token.");
  text += between_tokens_.text("inter_token_latency_seconds", "From a token to the next.");
  text += text_.text("text_seconds", "From a request to the end of a text.");
  return engine ? text + engine_text(*engine) : text;
}

}  // namespace gemma::server
