#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <gemma/engine/engine.h>

namespace gemma::server {

/// Counts in classes of seconds, as Prometheus wants it.
class Histogram {
 public:
  void add(double seconds);
  /// Its lines.
  std::string text(std::string_view name, std::string_view help) const;
  /// Of all; 0 when there are none.
  double mean() const;

 private:
  static constexpr std::array kLimits = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5,  1.0, 2.5,
                                         5.0,  10.0,  25.0, 50., 100., 250., 500.};
  std::array<int64_t, kLimits.size()> counts_{};
  int64_t count_ = 0;
  double sum_ = 0;
};

/// What a server has done. From any thread.
class Metrics {
 public:
  void add_first_token(double seconds);
  void add_between_tokens(double seconds);
  /// A text has ended.
  void add_text(FinishReason reason, int64_t completion_tokens, double seconds);
  void add_prompt(int64_t tokens, int64_t cached);
  void add_answer(int status);

  /// Mean seconds of a text.
  double text_seconds() const;

  /// In Prometheus' text format; with what an engine holds, when there is one.
  std::string text(const std::optional<EngineStatus>& engine) const;

 private:
  mutable std::mutex mutex_;
  Histogram first_token_, between_tokens_, text_;
  std::map<FinishReason, int64_t> ended_;
  std::map<int, int64_t> answers_;
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0, completion_tokens_ = 0;
};

}  // namespace gemma::server
