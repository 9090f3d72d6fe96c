#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/models/embedding_gemma.h>

namespace gemma::server {

/// Texts that are to become vectors.
struct EmbedJob {
  /// As token ids, bos and eos included; at least one text, each as EmbeddingGemma::forward takes
  /// it.
  std::vector<std::vector<int64_t>> texts;
  /// One or the other, once, unless it is cancelled: float32 [dim] for each text, or what went
  /// wrong. From another thread; must neither throw nor call the embedder.
  std::function<void(std::span<const at::Tensor> rows)> on_done;
  std::function<void(const std::exception_ptr& error)> on_error;
  std::atomic<bool> is_cancelled = false;
};

/// Embeds texts on a thread of its own, those of several jobs in one pass, each job's in turn: a
/// large job keeps small ones waiting for a pass only. From any thread.
class Embedder {
 public:
  explicit Embedder(EmbeddingGemma model);
  /// Jobs that are left get an ApiError, `shutting_down`.
  ~Embedder();
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  const EmbeddingGemmaImpl& model() const { return *model_; }
  void submit(std::shared_ptr<EmbedJob> job);
  /// Jobs that are not done.
  size_t jobs() const;

 private:
  struct Work {
    std::shared_ptr<EmbedJob> job;
    size_t begun = 0, done = 0;  // Texts.
    std::vector<at::Tensor> rows = {};
  };
  struct PassText {
    Work* work;
    size_t index;
  };

  void run();
  bool wait();
  std::vector<PassText> next_pass();
  void embed(std::span<const PassText> pass);

  EmbeddingGemma model_;
  std::deque<Work> works_;  // The thread's own.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<EmbedJob>> submitted_;
  size_t jobs_ = 0;
  bool is_stopped_ = false;
  std::thread thread_;
};

}  // namespace gemma::server
