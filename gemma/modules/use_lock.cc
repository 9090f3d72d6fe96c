#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/modules/use_lock.h>
#include <gemma/ops/parallel.h>

namespace gemma {

bool UseLock::is_mine() const {
  const auto me = std::this_thread::get_id();
  return changer_ == me || std::ranges::count(users_, me) > 0;
}

UseLock::Use::Use(UseLock& lock) : lock_(lock) {
  check_threads_alive();  // First: after a fork nobody may ever release the mutex.
  std::unique_lock hold(lock_.mutex_);
  if (!lock_.is_mine()) {
    lock_.ended_.wait(hold, [&] { return lock_.changes_ == 0 && lock_.waiting_ == 0; });
  }
  lock_.users_.push_back(std::this_thread::get_id());
}

UseLock::Use::~Use() {
  const std::unique_lock hold(lock_.mutex_);
  lock_.users_.erase(std::ranges::find(lock_.users_, std::this_thread::get_id()));
  lock_.ended_.notify_all();
}

UseLock::Change::Change(UseLock& lock, const char* who) : lock_(lock) {
  std::unique_lock hold(lock_.mutex_);
  const auto me = std::this_thread::get_id();
  if (lock_.changer_ != me) {
    if (lock_.is_mine()) {
      throw std::logic_error(fmt::format(
          "{}: a callback of a running computation cannot change the model; call it afterwards",
          who));
    }
    ++lock_.waiting_;
    lock_.ended_.wait(hold, [&] { return lock_.changes_ == 0 && lock_.users_.empty(); });
    --lock_.waiting_;
    lock_.changer_ = me;
  }
  ++lock_.changes_;
  ++lock_.version_;
}

UseLock::Change::~Change() {
  const std::unique_lock hold(lock_.mutex_);
  if (--lock_.changes_ == 0) lock_.changer_ = {};
  lock_.ended_.notify_all();
}

int64_t UseLock::version() const {
  const std::lock_guard hold(mutex_);
  return version_;
}

}  // namespace gemma
