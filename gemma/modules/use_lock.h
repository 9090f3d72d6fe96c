#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace gemma {

/// Keeps computations and changes of a model apart: any number of threads compute at the same time,
/// and a thread that changes the weights is alone. Who comes too early waits; a change goes first.
/// A thread may start a use within its own use or change, and a change within its own change.
class UseLock {
 public:
  /// A computation, as long as it lives. Throws std::runtime_error in a process that was forked
  /// after the parent had computed with several threads: they do not exist in the child, which
  /// would wait for them forever.
  class Use {
   public:
    explicit Use(UseLock& lock);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    UseLock& lock_;
  };

  /// A change, as long as it lives. Throws std::logic_error, which begins with `who`, inside a use
  /// of the same thread, such as a callback of generate().
  class Change {
   public:
    Change(UseLock& lock, const char* who);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    UseLock& lock_;
  };

  /// Changes so far. What was computed before the last one is of another model.
  int64_t version() const;

 private:
  bool is_mine() const;  // Whether this thread computes or changes already.

  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<std::thread::id> users_;  // One for each use.
  std::thread::id changer_;             // None: the id of no thread.
  int changes_ = 0;                     // Of the changer, one inside the other.
  int64_t version_ = 0;                 // Changes that there were.
  int waiting_ = 0;                     // Changes that wait for their turn.
};

}  // namespace gemma
