#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace gemma::server {

/// A thread that does one thing after the other.
class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// `task` must not throw. After stop() it is destroyed without being called.
  void post(std::function<void()> task);
  /// Tasks that wait.
  size_t waiting() const;
  /// Waits for the task that is being done; the others are destroyed.
  void stop();

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool is_stopped_ = false;
  std::thread thread_;
};

}  // namespace gemma::server
